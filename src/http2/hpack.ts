// Header blocks (HPACK, RFC 7541) as far as gRPC needs them: written with literals alone; read with a dynamic table, where
// a server has to, or without one: the command line's connection announces a size of 0 before its first request.
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
 * Reads a whole header block of a connection that has no dynamic table.
 * @throws Error when the block is malformed, or names an entry of the dynamic table
 */
export function decodeFields(block: Uint8Array): Field[] {
  return new FieldDecoder(0).decode(block);
}

/** RFC 7541, 4.1: what an entry counts beside its text. */
const ENTRY_OVERHEAD = 32;

/** Reads the header blocks of one connection, in their order: each may refer to fields of earlier ones. */
export class FieldDecoder {
  readonly #limit: number;
  #maximum: number;
  /** Newest first. */
  readonly #table: Field[] = [];
  #size = 0;

  /** @param limit bytes of the dynamic table, as the other end was told, or 4,096 where it was told nothing */
  constructor(limit: number) {
    this.#limit = limit;
    this.#maximum = limit;
  }

  /** @throws Error when the block is malformed; the connection is of no use then */
  decode(block: Uint8Array): Field[] {
    const reader = new BlockReader(block);
    const fields: Field[] = [];
    while (!reader.done) {
      const byte = reader.peek();
      if (byte & 0x80) {
        fields.push(this.#entry(reader.integer(7)));
      } else if ((byte & 0xe0) === 0x20) {
        this.#resize(reader.integer(5));
      } else {
        // With incremental indexing (01), without (0000) or never indexed (0001).
        const indexing = (byte & 0x40) !== 0;
        const index = reader.integer(indexing ? 6 : 4);
        const name = index === 0 ? reader.string() : this.#entry(index)[0];
        const field: Field = [name, reader.string()];
        fields.push(field);
        if (indexing) this.#add(field);
      }
    }
    return fields;
  }

  #entry(index: number): Field {
    const found =
      index <= staticTable.length ? staticTable[index - 1] : this.#table[index - staticTable.length - 1];
    if (found === undefined) throw new Error(`a header block names entry ${index}, which does not exist`);
    return found;
  }

  #resize(size: number): void {
    if (size > this.#limit) throw new Error('the dynamic table is larger than allowed');
    this.#maximum = size;
    this.#evict(0);
  }

  #add(field: Field): void {
    const size = sizeOf(field);
    this.#evict(size);
    if (size > this.#maximum) return; // RFC 7541, 4.4: that empties the table
    this.#table.unshift(field);
    this.#size += size;
  }

  #evict(room: number): void {
    while (this.#table.length > 0 && this.#size + room > this.#maximum) {
      const oldest = this.#table.pop();
      if (oldest !== undefined) this.#size -= sizeOf(oldest);
    }
  }
}

function sizeOf([name, value]: Field): number {
  return name.length + value.length + ENTRY_OVERHEAD;
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
