import { DeleteResponse } from '../../src/proto/gen/containerd/task.ts';

/** Bytes as a format of printf(1), so that the launcher can print them without starting a program. */
export function asPrintfFormat(bytes: Uint8Array): string {
  return [...bytes].map((byte) => `\\${byte.toString(8).padStart(3, '0')}`).join('');
}

/** What such a format says. */
export function fromPrintfFormat(format: string): Uint8Array {
  return Uint8Array.from([...format.matchAll(/\\([0-7]{3})/g)], ([, digits = '0']) => parseInt(digits, 8));
}

/** The answer of the shim binary's `delete`, as such a format. */
export function asPrintfArgument(response: DeleteResponse): string {
  return asPrintfFormat(DeleteResponse.encode(response).finish());
}
