/** Something in an image that this reader does not know: it is kept as it is. */
export class NotUnderstood extends Error {
  constructor(what: string) {
    super(what);
    this.name = 'NotUnderstood';
  }
}

export const PAGE = 4096;

/** Flags of an entry, criu/include/pagemap.h. */
export const IN_PARENT = 1;
export const LAZY = 2;
export const PRESENT = 4;

export interface PagemapEntry {
  /** Address, or offset in shared memory. */
  readonly vaddr: number;
  readonly pages: number;
  readonly flags: number;
  /** Whether the number of pages is written a second time, in 64 bits, as CRIU does from 4.2 on. */
  readonly wide: boolean;
}

export interface Pagemap {
  /** Of pages-<id>.img, which holds the present pages in the order of the entries. */
  readonly pagesId: number;
  readonly entries: readonly PagemapEntry[];
}

/**
 * `pagemap-<pid>.img` and `pagemap-shmem-<id>.img`. All numbers little-endian; images/pagemap.proto and criu/include/magic.h.
 *
 * | offset | bytes | what                                          |
 * | ------ | ----- | --------------------------------------------- |
 * | 0      | 4     | 0x54564319, of all images                     |
 * | 4      | 4     | 0x56084025, of a pagemap                      |
 * | 8      | 4     | bytes of the head that follows                |
 * | 12     |       | head: pages_id 1                              |
 * |        | 4     | bytes of the entry that follows, and so on    |
 * |        |       | entry: vaddr 1, pages in 32 bits 2, flags 4, pages in 64 bits 5; all of them varints |
 */
const COMMON_MAGIC = 0x54564319;
const MAGIC = 0x56084025;

/** @throws NotUnderstood for anything that is not exactly of this form, an in_parent (3) of older CRIUs included */
export function decodePagemap(bytes: Buffer): Pagemap {
  if (bytes.length < 12 || bytes.readUInt32LE(0) !== COMMON_MAGIC || bytes.readUInt32LE(4) !== MAGIC)
    throw new NotUnderstood('it does not begin as a pagemap does');
  let at = 8;
  const record = (): Map<number, number> => {
    if (at + 4 > bytes.length) throw new NotUnderstood('it is cut off');
    const end = at + 4 + bytes.readUInt32LE(at);
    if (end > bytes.length) throw new NotUnderstood('it is cut off');
    const fields = decodeFields(bytes, at + 4, end);
    at = end;
    return fields;
  };
  const head = record();
  const pagesId = head.get(1);
  if (pagesId === undefined || head.size !== 1) throw new NotUnderstood('it has an unknown head');
  const entries: PagemapEntry[] = [];
  while (at < bytes.length) entries.push(entryOf(record()));
  return { pagesId, entries };
}

function entryOf(fields: ReadonlyMap<number, number>): PagemapEntry {
  for (const field of fields.keys())
    if (![1, 2, 4, 5].includes(field)) throw new NotUnderstood(`an entry has the unknown field ${field}`);
  const [vaddr, narrow, flags, wide] = [1, 2, 4, 5].map((field) => fields.get(field));
  if (vaddr === undefined || narrow === undefined || flags === undefined)
    throw new NotUnderstood('an entry lacks a field');
  return { vaddr, pages: wide ?? narrow, flags, wide: wide !== undefined };
}

function decodeFields(bytes: Buffer, from: number, end: number): Map<number, number> {
  let at = from;
  const varint = (): number => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++];
      if (byte === undefined || at > end) throw new NotUnderstood('a number is cut off');
      value += (byte & 127) * scale;
      if (value > Number.MAX_SAFE_INTEGER) throw new NotUnderstood('a number is too large');
      if (byte < 128) return value;
    }
  };
  const fields = new Map<number, number>();
  while (at < end) {
    const tag = varint();
    if (tag % 8 !== 0) throw new NotUnderstood('a field is no number');
    if (fields.has(tag / 8)) throw new NotUnderstood('a field is there twice');
    fields.set(tag / 8, varint());
  }
  return fields;
}

export function encodePagemap({ pagesId, entries }: Pagemap): Buffer {
  const parts: number[] = [];
  const record = (fields: readonly (readonly [number, number])[]): void => {
    const body: number[] = [];
    for (const [field, value] of fields) {
      varint(body, field * 8);
      varint(body, value);
    }
    parts.push(body.length & 255, (body.length >> 8) & 255, 0, 0);
    for (const byte of body) parts.push(byte);
  };
  record([[1, pagesId]]);
  for (const { vaddr, pages, flags, wide } of entries)
    record([[1, vaddr], [2, pages % 2 ** 32], [4, flags], ...(wide ? [[5, pages] as const] : [])]);
  const magic = Buffer.alloc(8);
  magic.writeUInt32LE(COMMON_MAGIC, 0);
  magic.writeUInt32LE(MAGIC, 4);
  return Buffer.concat([magic, Buffer.from(parts)]);
}

function varint(out: number[], value: number): void {
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) out.push((rest % 128) + 128);
  out.push(rest);
}
