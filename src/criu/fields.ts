// The parts of the messages that CRIU's images consist of.
import { NotUnderstood } from './pagemap.ts';

const wire = { varint: 0, fixed64: 1, bytes: 2, fixed32: 5 } as const;

export interface Field {
  readonly number: number;
  /** Of a number; one beyond 2^53 is not exact. */
  readonly value: number;
  /** Of what has a length. */
  readonly range?: readonly [number, number];
  /** Where the next one begins. */
  readonly end: number;
}

/**
 * The fields of a Protocol Buffers message: https://protobuf.dev/programming-guides/encoding/
 * @throws NotUnderstood
 */
export function* fieldsOf(bytes: Buffer, from: number, end: number): Generator<Field> {
  let at = from;
  const varint = (): number => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++];
      if (byte === undefined || at > end || scale > 2 ** 63) throw new NotUnderstood('a number is cut off');
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < end) {
    const tag = varint();
    const [number, kind] = [Math.floor(tag / 8), tag % 8];
    if (kind === wire.varint) {
      const value = varint();
      yield { number, value, end: at };
      continue;
    }
    const length =
      kind === wire.fixed64 ? 8 : kind === wire.fixed32 ? 4 : kind === wire.bytes ? varint() : undefined;
    if (length === undefined) throw new NotUnderstood('a field has an unknown form');
    const begin = at;
    at += length;
    if (at > end) throw new NotUnderstood('a field is cut off');
    yield { number, value: 0, range: [begin, at], end: at };
  }
}
