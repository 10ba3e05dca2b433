import { connect } from 'node:net';
import { Unavailable } from '../errors.ts';

/** What can be asked of a guard, at a socket of its own. */
export type Ask = 'status' | 'upgrade';

/** What a guard says of itself and its worker. */
export interface GuardStatus {
  readonly pid: number;
  readonly version: string;
  readonly protocol: number;
  /** undefined while none serves. */
  readonly worker?: { readonly pid: number; readonly version: string };
  /** How many workers have ended that were not replaced on purpose, and how the last one did. */
  readonly restarts: number;
  readonly lastEnd?: EndNote;
  /** How the last few did, `lastEnd` at the end; not there in the answer of a guard that does not keep them. */
  readonly ends?: readonly EndNote[];
}

/** How a worker has ended. */
export interface EndNote {
  readonly why: string;
  /** Unix time in milliseconds. */
  readonly at: number;
}

/** What came of an upgrade. */
export interface Upgraded {
  readonly worker: { readonly from: string; readonly to: string };
  /** @see why it stays, where it does */
  readonly guard: { readonly from: string; readonly to: string; readonly why?: string };
  readonly tookMs: number;
}

export type Answer =
  { readonly status: GuardStatus } | { readonly upgraded: Upgraded } | { readonly error: string };

/** Longer than anything a guard waits for in an upgrade. */
const TIMEOUT_MS = 120_000;

/** Asks a guard. @throws Unavailable where nobody answers at that socket */
export function askGuard(path: string, ask: Ask, timeoutMs = TIMEOUT_MS): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    let text = '';
    const fail = (why: string): void => {
      socket.destroy();
      reject(new Unavailable(`no guard answers at ${path}: ${why}`, { subject: path }));
    };
    socket.setEncoding('utf8');
    socket.setTimeout(timeoutMs, () => fail(`nothing came for ${timeoutMs / 1000} s`));
    socket.once('error', (error) => fail(error.message));
    socket.on('data', (chunk: string) => (text += chunk));
    socket.once('end', () => {
      try {
        resolve(JSON.parse(text) as Answer);
      } catch {
        fail('it went away without an answer');
      }
    });
    socket.write(`${JSON.stringify({ ask })}\n`);
  });
}
