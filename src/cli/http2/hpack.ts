// Header blocks (HPACK, RFC 7541) as far as a gRPC client needs them. The connection announces a dynamic table
// of size 0 before its first request, so the server may use the static table and literals alone.
import { decodeHuffman } from './huffman.ts';

export type Field = readonly [name: string, value: string];

/** RFC 7541, appendix A: names, with their values where they have one. */
const staticTable: readonly Field[] = (
  ':authority|:method=GET|:method=POST|:path=/|:path=/index.html|:scheme=http|:scheme=https|:status=200|' +
  ':status=204|:status=206|:status=304|:status=400|:status=404|:status=500|accept-charset|' +
  'accept-encoding=gzip, deflate|accept-language|accept-ranges|accept|access-control-allow-origin|age|allow|' +
  'authorization|cache-control|content-disposition|content-encoding|content-language|content-length|' +
  'content-location|content-range|content-type|cookie|date|etag|expect|expires|from|host|if-match|' +
  'if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|link|location|max-forwards|' +
  'proxy-authenticate|proxy-authorization|range|referer|refresh|retry-after|server|set-cookie|' +
  'strict-transport-security|transfer-encoding|user-agent|vary|via|www-authenticate'
)
  .split('|')
  .map((entry) => {
    const [name = '', value = ''] = entry.split('=');
    return [name, value];
  });

/** Writes fields as literals without indexing and without Huffman: short, and nothing to keep in step. */
export function encodeFields(fields: readonly Field[]): Buffer {
  return Buffer.concat(
    fields.flatMap(([name, value]) => [Buffer.of(0), ...encodeString(name), ...encodeString(value)]),
  );
}

/**
 * Reads a whole header block.
 * @throws Error when the block is malformed, or names an entry of the dynamic table, which has none
 */
export function decodeFields(block: Uint8Array): Field[] {
  const reader = new BlockReader(block);
  const fields: Field[] = [];
  while (!reader.done) {
    const byte = reader.peek();
    if (byte & 0x80) {
      fields.push(entry(reader.integer(7)));
    } else if ((byte & 0xe0) === 0x20) {
      if (reader.integer(5) !== 0) throw new Error('the dynamic table is larger than allowed');
    } else {
      // With incremental indexing (01), without (0000) or never indexed (0001): a table of size 0 keeps none.
      const index = reader.integer(byte & 0x40 ? 6 : 4);
      const name = index === 0 ? reader.string() : entry(index)[0];
      fields.push([name, reader.string()]);
    }
  }
  return fields;
}

function entry(index: number): Field {
  const found = staticTable[index - 1];
  if (found === undefined) throw new Error(`a header block names entry ${index}, which does not exist`);
  return found;
}

function encodeString(text: string): Buffer[] {
  const bytes = Buffer.from(text, 'latin1');
  return [encodeInteger(bytes.length, 7), bytes];
}

/** RFC 7541, 5.1; the bits above the prefix are 0. */
function encodeInteger(value: number, prefix: number): Buffer {
  const limit = 2 ** prefix - 1;
  if (value < limit) return Buffer.of(value);
  const bytes = [limit];
  let rest = value - limit;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 0x80);
  return Buffer.from([...bytes, rest]);
}

class BlockReader {
  readonly #block: Uint8Array;
  #at = 0;

  constructor(block: Uint8Array) {
    this.#block = block;
  }

  get done(): boolean {
    return this.#at >= this.#block.length;
  }

  peek(): number {
    const byte = this.#block[this.#at];
    if (byte === undefined) throw new Error('a header block ends early');
    return byte;
  }

  integer(prefix: number): number {
    const limit = 2 ** prefix - 1;
    let value = this.#byte() & limit;
    if (value < limit) return value;
    for (let shift = 0; shift <= 21; shift += 7) {
      const byte = this.#byte();
      value += (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    throw new Error('a header block holds an absurd number');
  }

  string(): string {
    const huffman = (this.peek() & 0x80) !== 0;
    const length = this.integer(7);
    const bytes = this.#block.subarray(this.#at, this.#at + length);
    if (bytes.length < length) throw new Error('a header block ends early');
    this.#at += length;
    return (huffman ? decodeHuffman(bytes) : Buffer.from(bytes)).toString('latin1');
  }

  #byte(): number {
    const byte = this.peek();
    this.#at++;
    return byte;
  }
}
