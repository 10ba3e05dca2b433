import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { mergeParents } from '../../../src/criu/page-merge.ts';
import {
  decodePagemap,
  encodePagemap,
  IN_PARENT,
  LAZY,
  NotUnderstood,
  PAGE,
  PRESENT,
} from '../../../src/criu/pagemap.ts';

let base: string;
beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), 'stasis-merge-'));
});
afterEach(() => rmSync(base, { recursive: true }));

/** Number of the first page, number of pages, flags; and for each present page a letter that fills it. */
type Entry = readonly [page: number, pages: number, flags: number, content?: string];

const START = 0x7f0000000000;
const at = (page: number): number => START + page * PAGE;

function write(image: string, entries: readonly Entry[], name = 'pagemap-7.img', pagesId = 1): string {
  const folder = join(base, image);
  mkdirSync(folder, { recursive: true });
  const pagemap = {
    pagesId,
    entries: entries.map(([page, pages, flags]) => ({ vaddr: at(page), pages, flags, wide: true })),
  };
  writeFileSync(join(folder, name), encodePagemap(pagemap));
  const letters = entries.map(([, , , content = '']) => content).join('');
  writeFileSync(
    join(folder, `pages-${pagesId}.img`),
    Buffer.concat([...letters].map((letter) => Buffer.alloc(PAGE, letter))),
  );
  return folder;
}

/** The entries, and a letter for each page. */
function read(folder: string, name = 'pagemap-7.img'): Entry[] {
  const { pagesId, entries } = decodePagemap(readFileSync(join(folder, name)));
  const bytes = readFileSync(join(folder, `pages-${pagesId}.img`));
  let from = 0;
  const found = entries.map(({ vaddr, pages, flags }): Entry => {
    let content = '';
    for (let page = 0; page < pages; page++, from += PAGE) {
      const letter = String.fromCharCode(bytes[from] ?? 0);
      assert.ok(bytes.subarray(from, from + PAGE).equals(Buffer.alloc(PAGE, letter)));
      content += letter;
    }
    return [(vaddr - START) / PAGE, pages, flags, content];
  });
  assert.equal(from, bytes.length, 'nothing is left over');
  return found;
}

/** `mm-7.img` with these mappings: first page, pages, flags of mmap. */
function writeMappings(folder: string, mappings: readonly (readonly [number, number, number])[]): Buffer {
  const varint = (value: number): number[] =>
    value < 128 ? [value] : [(value % 128) + 128, ...varint(Math.floor(value / 128))];
  const body = mappings.flatMap(([page, pages, flags]) => {
    const vma = [8, ...varint(at(page)), 16, ...varint(at(page + pages)), 24, 0, 48, ...varint(flags)];
    return [14 * 8 + 2, ...varint(vma.length), ...vma];
  });
  // Fields before and after, as there are in a real one; fd is a negative number.
  const all = [8, ...varint(0x400000), ...body, 120, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1];
  const head = Buffer.alloc(12);
  head.writeUInt32LE(0x54564319, 0);
  head.writeUInt32LE(0x57492820, 4);
  head.writeUInt32LE(all.length, 8);
  const bytes = Buffer.concat([head, Buffer.from(all)]);
  writeFileSync(join(folder, 'mm-7.img'), bytes);
  return bytes;
}

const ANONYMOUS = 0x22;
const LOCKED = 0x2000;
const refuse = (work: Promise<void>, said: RegExp): Promise<void> =>
  assert.rejects(work, (error) => {
    assert.ok(error instanceof NotUnderstood, String(error));
    assert.match(error.message, said);
    return true;
  });

test('each page comes from the newest image that has it, whatever its neighbours do', async () => {
  const first = write('pre-1', [
    [0, 6, PRESENT | LAZY, 'abcdef'],
    [10, 2, PRESENT, 'xy'],
  ]);
  const second = write('pre-2', [
    [0, 1, IN_PARENT],
    [1, 2, PRESENT | LAZY, 'BC'],
    [3, 3, IN_PARENT],
    [10, 2, IN_PARENT],
  ]);
  const image = write('image', [
    [0, 2, IN_PARENT],
    [2, 1, PRESENT | LAZY, '2'],
    [3, 1, IN_PARENT],
    [4, 1, PRESENT | LAZY, '4'],
    [10, 1, IN_PARENT], // 11 and 5 have been unmapped
    [20, 1, PRESENT, '!'],
  ]);
  symlinkSync('../pre-2', join(image, 'parent'));
  writeMappings(image, [[0, 30, ANONYMOUS]]);
  await mergeParents(image, [second, first]);
  assert.deepEqual(read(image), [
    [0, 5, PRESENT | LAZY, 'aB2d4'],
    [10, 1, PRESENT, 'x'],
    [20, 1, PRESENT, '!'],
  ]);
  assert.equal(existsSync(join(image, 'parent')), false);
  assert.deepEqual(readdirSync(image).sort(), ['mm-7.img', 'pagemap-7.img', 'pages-1.img']);
  assert.equal(statSync(join(image, 'pages-1.img')).mode & 0o777, 0o600);
});

test('what was locked since is not lazy, and nothing is where the mappings are not known', async () => {
  const parent = write('pre-1', [[0, 6, PRESENT | LAZY, 'abcdef']]);
  const image = write('image', [[0, 6, IN_PARENT]]);
  writeMappings(image, [
    [4, 2, ANONYMOUS],
    [0, 2, ANONYMOUS],
    [2, 2, ANONYMOUS | LOCKED],
  ]);
  await mergeParents(image, [parent]);
  assert.deepEqual(read(image), [
    [0, 2, PRESENT | LAZY, 'ab'],
    [2, 2, PRESENT, 'cd'],
    [4, 2, PRESENT | LAZY, 'ef'],
  ]);
  for (const damage of ['missing', 'short', 'foreign']) {
    const again = write('image', [[0, 6, IN_PARENT]]);
    const bytes = writeMappings(again, [[0, 6, ANONYMOUS]]);
    if (damage === 'missing') rmSync(join(again, 'mm-7.img'));
    if (damage === 'short') truncateSync(join(again, 'mm-7.img'), bytes.length - 3);
    if (damage === 'foreign') writeFileSync(join(again, 'mm-7.img'), bytes.fill(0xff, 12));
    await mergeParents(again, [parent]);
    assert.deepEqual(read(again), [[0, 6, PRESENT, 'abcdef']], damage);
  }
});

test('several processes, and one that began after the last round', async () => {
  const parent = write('pre-1', [[0, 2, PRESENT, 'ab']]);
  write('pre-1', [[0, 1, PRESENT, 's']], 'pagemap-shmem-99.img', 2);
  const image = write('image', [[0, 1, PRESENT, 'n']], 'pagemap-8.img', 1);
  write('image', [[0, 2, IN_PARENT]], 'pagemap-7.img', 2);
  write('image', [[0, 1, IN_PARENT]], 'pagemap-shmem-99.img', 3);
  const untouched = statSync(join(image, 'pages-1.img')).ino;
  await mergeParents(image, [parent]);
  assert.deepEqual(read(image), [[0, 2, PRESENT, 'ab']]);
  assert.deepEqual(read(image, 'pagemap-8.img'), [[0, 1, PRESENT, 'n']]);
  assert.deepEqual(read(image, 'pagemap-shmem-99.img'), [[0, 1, PRESENT, 's']]);
  assert.equal(statSync(join(image, 'pages-1.img')).ino, untouched, 'what is whole is left as it is');
});

test('more than is read at once, in pieces from two images by turns', async () => {
  const pages = 700;
  const parent = write('pre-1', [[0, pages, PRESENT, 'p'.repeat(pages)]]);
  const entries: Entry[] = [];
  for (let page = 0; page < pages; page += 7) {
    entries.push([page, 4, IN_PARENT]);
    entries.push([page + 4, 3, PRESENT, 'i'.repeat(3)]);
  }
  const image = write('image', entries);
  await mergeParents(image, [parent]);
  assert.deepEqual(read(image), [[0, pages, PRESENT, 'ppppiii'.repeat(pages / 7)]]);
});

test('a page that no image has is named, and so is a file that lies', async () => {
  const parent = write('pre-1', [
    [0, 2, PRESENT, 'ab'],
    [3, 1, IN_PARENT],
  ]);
  const merge = async (entries: readonly Entry[]): Promise<void> =>
    mergeParents(write('image', entries), [parent]);
  await refuse(merge([[0, 3, IN_PARENT]]), /^pagemap-7.img: the page at 0x7f0000002000 is in none/);
  await refuse(merge([[3, 1, IN_PARENT]]), /0x7f0000003000 is in none/);
  const late = write('late', [[0, 1, IN_PARENT]], 'pagemap-9.img');
  await refuse(mergeParents(late, [parent]), /^pagemap-9.img: .* none/);
  for (const entries of [
    [
      [1, 1, IN_PARENT],
      [0, 1, IN_PARENT],
    ],
    [
      [0, 2, IN_PARENT],
      [1, 1, PRESENT, 'x'],
    ],
  ] satisfies Entry[][])
    await refuse(merge(entries), /not in order/);
  await refuse(merge([[0, 1, IN_PARENT | PRESENT, 'x']]), /other kinds/);
  await refuse(merge([[0, 1, IN_PARENT | 64]]), /other kinds/);
  await refuse(
    merge([
      [0, 1, IN_PARENT],
      [5, 1, 0],
    ]),
    /other kinds/,
  );
  await refuse(merge([[0, 0, IN_PARENT]]), /not in order/);
});

test('pages files and pagemaps that are cut off are not read beyond their end', async () => {
  const parent = write('pre-1', [[0, 2, PRESENT, 'ab']]);
  const image = write('image', [
    [0, 2, IN_PARENT],
    [2, 1, PRESENT, 'c'],
  ]);
  const whole = readFileSync(join(image, 'pagemap-7.img'));
  truncateSync(join(image, 'pages-1.img'), PAGE - 1);
  await refuse(mergeParents(image, [parent]), /pages-1.img does not hold/);
  writeFileSync(join(image, 'pages-1.img'), Buffer.alloc(PAGE));
  truncateSync(join(parent, 'pages-1.img'), PAGE);
  await refuse(mergeParents(image, [parent]), /pages-1.img does not hold/);
  const former = readFileSync(join(parent, 'pagemap-7.img'));
  writeFileSync(join(parent, 'pagemap-7.img'), former.subarray(0, -1));
  await refuse(mergeParents(image, [parent]), /cut off/);
  for (const length of [0, 11, whole.length - 1]) {
    writeFileSync(join(image, 'pagemap-7.img'), whole.subarray(0, length));
    await refuse(mergeParents(image, [parent]), /cut off|does not begin/);
  }
});

test('it ends when its caller does', async () => {
  const parent = write('pre-1', [[0, 2, PRESENT, 'ab']]);
  const image = write('image', [[0, 2, IN_PARENT]]);
  await assert.rejects(mergeParents(image, [parent], AbortSignal.abort(new Error('gone'))), /gone/);
});
