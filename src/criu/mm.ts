// What of a process's mappings is in `mm-<pid>.img`.
import { fieldsOf } from './fields.ts';
import { NotUnderstood } from './pagemap.ts';

/** Addresses from `start` up to, not including, `end`. */
export interface Area {
  readonly start: number;
  readonly end: number;
}

const COMMON_MAGIC = 0x54564319;
/** criu/include/magic.h */
const MAGIC = 0x57492820;

/** Flags of mmap(2). */
const MAP_PRIVATE = 0x2;
const MAP_ANONYMOUS = 0x20;
const MAP_LOCKED = 0x2000;
const MAP_HUGETLB = 0x40000;

/** Numbers of images/mm.proto and images/vma.proto. */
const field = { vmas: 14, start: 1, end: 2, flags: 6 } as const;

/**
 * Where pages of this process may be brought in after it runs, by the rule of CRIU's own (vma_entry_can_be_lazy): in private
 * anonymous memory that is not locked.
 * @param bytes of `mm-<pid>.img`
 * @returns sorted by address
 * @throws NotUnderstood
 */
export function lazyAreas(bytes: Buffer): Area[] {
  if (bytes.length < 12 || bytes.readUInt32LE(0) !== COMMON_MAGIC || bytes.readUInt32LE(4) !== MAGIC)
    throw new NotUnderstood('it does not begin as the list of mappings does');
  const end = 12 + bytes.readUInt32LE(8);
  if (end !== bytes.length) throw new NotUnderstood('it is cut off');
  const areas: Area[] = [];
  for (const entry of fieldsOf(bytes, 12, end)) {
    if (entry.number !== field.vmas) continue;
    if (entry.range === undefined) throw new NotUnderstood('a mapping has another form');
    let [start, stop, flags] = [0, 0, 0];
    for (const { number, value } of fieldsOf(bytes, ...entry.range)) {
      if (number === field.start) start = value;
      if (number === field.end) stop = value;
      if (number === field.flags) flags = value;
    }
    if (mayBeLazy(flags)) areas.push({ start, end: stop });
  }
  return areas.sort((a, b) => a.start - b.start);
}

function mayBeLazy(flags: number): boolean {
  const wanted = MAP_PRIVATE | MAP_ANONYMOUS;
  return (flags & wanted) === wanted && (flags & (MAP_LOCKED | MAP_HUGETLB)) === 0;
}
