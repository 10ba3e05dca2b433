import { InvalidArgument } from '../errors.ts';
import type { Stretch } from './entry.ts';
import { field, readNumber, SPARSE_MORE_OFFSET, SPARSE_OFFSET } from './fields.ts';

/*
 * GNU tar's ways to store a sparse file, https://www.gnu.org/software/tar/manual/html_node/Sparse-Formats.html:
 * stretches in the header block and blocks after it (type S), in PAX records (0.0: one pair each, 0.1: one list),
 * or in a list at the head of the content (1.0).
 */

const PAIR = 24;
const PAIRS_IN_HEADER = 4;
const PAIRS_IN_BLOCK = 21;

/** How a file's stretches are told. */
export interface SparseFile {
  readonly realSize: number;
  /** Known stretches; undefined where the content begins with their list. */
  readonly stretches: readonly Stretch[] | undefined;
}

/** Stretches in the header block of type S, and whether a block with more follows. */
export function headerStretches(block: Buffer): { stretches: Stretch[]; more: boolean; realSize: number } {
  return {
    ...pairs(block, SPARSE_OFFSET, PAIRS_IN_HEADER, SPARSE_MORE_OFFSET),
    realSize: readNumber(block, field.realSize),
  };
}

/** Stretches in a block that follows such a header. */
export function blockStretches(block: Buffer): { stretches: Stretch[]; more: boolean } {
  return pairs(block, 0, PAIRS_IN_BLOCK, PAIRS_IN_BLOCK * PAIR);
}

function pairs(
  block: Buffer,
  at: number,
  count: number,
  moreAt: number,
): { stretches: Stretch[]; more: boolean } {
  const stretches: Stretch[] = [];
  for (let index = 0; index < count; index++) {
    const offset = at + index * PAIR;
    if (block[offset] === 0) break;
    stretches.push({ offset: readNumber(block, [offset, 12]), length: readNumber(block, [offset + 12, 12]) });
  }
  return { stretches, more: block[moreAt] === 1 };
}

/** What PAX records say of sparseness; undefined where they say nothing. @throws InvalidArgument */
export function paxSparse(
  get: (key: string) => string | undefined,
  all: (key: string) => string[],
): SparseFile | undefined {
  const major = get('GNU.sparse.major');
  const minor = get('GNU.sparse.minor');
  const realSize = get('GNU.sparse.realsize') ?? get('GNU.sparse.size');
  if (realSize === undefined) return undefined;
  if (major === '1' && minor === '0') return { realSize: number(realSize), stretches: undefined };
  const map = get('GNU.sparse.map');
  if (map !== undefined)
    return { realSize: number(realSize), stretches: listed(map === '' ? [] : map.split(',')) };
  const lengths = all('GNU.sparse.numbytes');
  const list = all('GNU.sparse.offset').flatMap((offset, index) => [offset, lengths[index] ?? '']);
  return { realSize: number(realSize), stretches: listed(list) };
}

/**
 * The list at the head of the content (1.0): decimal numbers, one a line, the count of stretches first, filled up to
 * a whole block. Undefined while it is not complete. @throws InvalidArgument
 */
export function contentStretches(head: Buffer): { stretches: Stretch[]; bytes: number } | undefined {
  const numbers: string[] = [];
  let at = 0;
  for (let wanted = 1; numbers.length < wanted;) {
    const end = head.indexOf(0x0a, at);
    if (end < 0) return undefined;
    numbers.push(head.toString('latin1', at, end));
    at = end + 1;
    if (numbers.length === 1) wanted = 1 + 2 * number(numbers[0] ?? '');
  }
  const bytes = Math.ceil(at / 512) * 512;
  return head.length < bytes ? undefined : { stretches: listed(numbers.slice(1)), bytes };
}

/**
 * Checks that stretches lie in order within the file and hold what is stored.
 * @throws InvalidArgument
 */
export function checkStretches(stretches: readonly Stretch[], stored: number, realSize: number): void {
  let end = 0;
  let total = 0;
  for (const { offset, length } of stretches) {
    if (offset < end || offset + length > realSize) throw wrong();
    end = offset + length;
    total += length;
  }
  if (total !== stored) throw wrong();
}

function listed(numbers: readonly string[]): Stretch[] {
  if (numbers.length % 2 !== 0) throw wrong();
  const stretches: Stretch[] = [];
  for (let at = 0; at < numbers.length; at += 2) {
    stretches.push({ offset: number(numbers[at] ?? ''), length: number(numbers[at + 1] ?? '') });
  }
  return stretches;
}

function number(text: string): number {
  if (!/^\d{1,15}$/.test(text)) throw wrong();
  return Number(text);
}

function wrong(): InvalidArgument {
  return new InvalidArgument('a tar archive has a sparse file whose parts do not fit together');
}
