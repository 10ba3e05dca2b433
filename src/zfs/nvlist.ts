const HEADER_BYTES = 8;
const PAIR_BYTES = 16;
/** `DATA_TYPE_UINT64` and `DATA_TYPE_STRING`. */
const [NUMBER, STRING] = [8, 9];
/** `NV_UNIQUE_NAME` */
const UNIQUE_NAMES = 1;

/**
 * Names with texts or numbers as an nvlist in its native form, for a daemon on this machine, which is little-endian: libnvpair's
 * `NV_ENCODE_NATIVE`. Each pair is its size, name's size, count and type, the name and the value, both filled up to eight bytes;
 * names and texts end in a zero.
 */
export function nativeList(pairs: Readonly<Record<string, string | bigint>>): Buffer {
  const header = Buffer.from([0, 1, 0, 0]); // native, little-endian
  const body = Buffer.alloc(HEADER_BYTES);
  body.writeInt32LE(UNIQUE_NAMES, 4); // after the version, which is zero
  const encoded = Object.entries(pairs).map(([name, value]) => pairOf(name, value));
  return Buffer.concat([header, body, ...encoded, Buffer.alloc(4)]);
}

function pairOf(name: string, value: string | bigint): Buffer {
  const nameBytes = Buffer.from(`${name}\0`);
  const valueBytes = typeof value === 'string' ? Buffer.from(`${value}\0`) : numberOf(value);
  const valueAt = aligned(PAIR_BYTES + nameBytes.length);
  const pair = Buffer.alloc(valueAt + aligned(valueBytes.length));
  pair.writeInt32LE(pair.length, 0);
  pair.writeInt16LE(nameBytes.length, 4);
  pair.writeInt32LE(1, 8);
  pair.writeInt32LE(typeof value === 'string' ? STRING : NUMBER, 12);
  nameBytes.copy(pair, PAIR_BYTES);
  valueBytes.copy(pair, valueAt);
  return pair;
}

function numberOf(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  return bytes;
}

function aligned(length: number): number {
  return (length + 7) & ~7;
}
