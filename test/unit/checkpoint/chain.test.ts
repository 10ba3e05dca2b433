import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { followChain, indexFile, storeImage } from '../../../src/checkpoint/chain.ts';
import { decodePagemap, encodePagemap, IN_PARENT, LAZY, PAGE, PRESENT } from '../../../src/criu/pagemap.ts';

/** The images of these tests are small ones. */
const leastPages = 256;

/** A small generator of its own, so that a failure can be had again. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1664525 + 1013904223) % 2 ** 32;
    return state / 2 ** 32;
  };
}

/** Pages by address, for each pagemap. */
type Memory = Map<string, Map<number, Buffer>>;

function content(tag: number): Buffer {
  return Buffer.alloc(PAGE, createHash('sha256').update(String(tag)).digest());
}

/** Writes an image as CRIU does: entries are runs of neighbouring pages, in the order of the pages file. */
function writeImage(folder: string, memory: Memory, flags = PRESENT): void {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  let pagesId = 1;
  for (const [name, pages] of memory) {
    const entries: { vaddr: number; pages: number; flags: number; wide: boolean }[] = [];
    const addresses = [...pages.keys()].sort((a, b) => a - b);
    for (const vaddr of addresses) {
      const last = entries.at(-1);
      if (last !== undefined && last.vaddr + last.pages * PAGE === vaddr) last.pages++;
      else entries.push({ vaddr, pages: 1, flags, wide: true });
    }
    writeFileSync(join(folder, name), encodePagemap({ pagesId, entries }));
    const bytes = Buffer.concat(addresses.map((vaddr) => pages.get(vaddr) ?? Buffer.alloc(0)));
    writeFileSync(join(folder, `pages-${pagesId++}.img`), bytes);
  }
  writeFileSync(join(folder, 'inventory.img'), `inventory ${Math.random()}`);
}

/** Reads an image as CRIU does, through `parent` where an entry says so. */
function readMemory(folder: string): Memory {
  const memory: Memory = new Map();
  const parent = join(folder, 'parent');
  const before: Memory = existsSync(parent) ? readMemory(parent) : new Map<string, Map<number, Buffer>>();
  for (const name of readdirSync(folder).filter((other) => other.startsWith('pagemap-'))) {
    const pages = new Map<number, Buffer>();
    const { pagesId, entries } = decodePagemap(readFileSync(join(folder, name)));
    const bytes = readFileSync(join(folder, `pages-${pagesId}.img`));
    let at = 0;
    for (const { vaddr, pages: count, flags } of entries) {
      for (let page = 0; page < count; page++) {
        const address = vaddr + page * PAGE;
        if ((flags & IN_PARENT) === 0) pages.set(address, bytes.subarray(at, (at += PAGE)));
        else {
          const former = before.get(name)?.get(address);
          assert.ok(former !== undefined, `page ${address.toString(16)} of ${name} is missing in the parent`);
          pages.set(address, former);
        }
      }
    }
    assert.equal(at, bytes.length, `all of pages-${pagesId}.img belongs to ${name}`);
    memory.set(name, pages);
  }
  return memory;
}

function assertSame(actual: Memory, expected: Memory): void {
  assert.deepEqual([...actual.keys()].sort(), [...expected.keys()].sort());
  for (const [name, pages] of expected) {
    const found = actual.get(name);
    assert.deepEqual(
      [...(found?.keys() ?? [])],
      [...pages.keys()].sort((a, b) => a - b),
    );
    for (const [vaddr, page] of pages)
      assert.ok(found?.get(vaddr)?.equals(page) === true, `${name} ${vaddr.toString(16)}`);
  }
}

suite('a chain of images', () => {
  const folder = mkdtempSync(join(tmpdir(), 'stasis-chain-'));
  after(() => rmSync(folder, { recursive: true }));
  const pagesOf = (image: string): number =>
    readdirSync(image)
      .filter((name) => name.startsWith('pages-'))
      .reduce((sum, name) => sum + statSync(join(image, name)).size / PAGE, 0);

  /** Changes, adds and removes pages, processes and whole mappings. */
  function mutate(memory: Memory, next: () => number): void {
    for (const pages of memory.values()) {
      for (const vaddr of [...pages.keys()]) {
        const what = next();
        if (what < 0.05) pages.set(vaddr, content(Math.floor(next() * 1e9)));
        else if (what < 0.06) pages.delete(vaddr);
        else if (what < 0.07) pages.set(vaddr, Buffer.alloc(PAGE));
      }
      const base = Math.floor(next() * 1000) * PAGE + (next() < 0.2 ? 0x7f00_0000_0000 : 0x40_0000);
      for (let page = 0; page < next() * 40; page++) pages.set(base + page * PAGE, content(page));
    }
    if (next() < 0.3)
      memory.set(`pagemap-${Math.floor(next() * 5) + 50}.img`, new Map(memory.get('pagemap-1.img')));
    if (next() < 0.3) memory.delete(`pagemap-${Math.floor(next() * 5) + 50}.img`);
  }

  for (let seed = 1; seed <= 4; seed++) {
    test(`gives back every page of every image, whatever comes, changes and goes (seed ${seed})`, async () => {
      const next = random(seed);
      const head = join(folder, `head-${seed}`);
      mkdirSync(head);
      const memory: Memory = new Map([
        ['pagemap-1.img', new Map<number, Buffer>()],
        ['pagemap-7.img', new Map<number, Buffer>()],
        ['pagemap-shmem-12.img', new Map<number, Buffer>()],
      ]);
      for (const pages of memory.values())
        for (let page = 0; page < 200; page++) pages.set((page + 16) * PAGE, content(page));
      let linked = 0;
      const kept: { at: string; memory: Memory }[] = [];
      for (let round = 0; round < 12; round++) {
        mutate(memory, next);
        const image = join(folder, 'dump');
        writeImage(image, memory, seed % 2 === 0 ? PRESENT | LAZY : PRESENT);
        await storeImage(head, {
          leastPages,
          from: image,
          id: `c${round}`,
          former: round === 0 ? undefined : `c${round - 1}`,
          limit: 8,
        });
        const stored = join(head, 'image');
        linked = Math.max(linked, await followChain(stored));
        assertSame(readMemory(stored), memory);
        assert.equal(
          readFileSync(join(stored, 'inventory.img'), 'utf8'),
          readFileSync(join(image, 'inventory.img'), 'utf8'),
        );
        // What a snapshot of the head holds.
        const at = join(folder, `snapshot-${seed}-${round}`);
        cpSync(head, at, { recursive: true, verbatimSymlinks: true });
        kept.push({ at, memory: new Map([...memory].map(([name, pages]) => [name, new Map(pages)])) });
      }
      assert.ok(linked > 1 && linked <= 8, `chains were made, of ${linked} links at most`);
      for (const snapshot of kept) {
        assertSame(readMemory(join(snapshot.at, 'image')), snapshot.memory);
        rmSync(snapshot.at, { recursive: true });
      }
    });
  }

  function steady(pages: number, tag = 0): Memory {
    const map = new Map<number, Buffer>();
    for (let page = 0; page < pages; page++) map.set((page + 16) * PAGE, content(page + tag));
    return new Map([['pagemap-1.img', map]]);
  }

  async function store(
    head: string,
    memory: Memory,
    id: string,
    former?: string,
    limit = 8,
  ): Promise<string> {
    const image = join(folder, 'dump');
    writeImage(image, memory);
    mkdirSync(head, { recursive: true });
    await storeImage(head, { from: image, id, former, limit, leastPages });
    return join(head, 'image');
  }

  test('holds nothing but the changed page, and is folded into one image when it has the most links', async () => {
    const head = join(folder, 'fold');
    const memory = steady(1000);
    await store(head, memory, 'c0');
    for (let round = 1; round <= 9; round++) {
      memory.get('pagemap-1.img')?.set((16 + round) * PAGE, content(-round));
      const image = await store(head, memory, `c${round}`, `c${round - 1}`);
      assert.equal(pagesOf(image), round === 9 ? 1000 : 1);
      assertSame(readMemory(image), memory);
    }
    assert.deepEqual(
      readdirSync(head).filter((name) => name.startsWith('link')),
      [],
    );
  });

  test('is folded when it holds twice the pages of its image', async () => {
    const head = join(folder, 'twice');
    await store(head, steady(1000), 'c0');
    const sizes = [];
    for (let round = 1; round <= 4; round++) {
      const memory = steady(1000);
      for (let page = 0; page < 400; page++)
        memory.get('pagemap-1.img')?.set((16 + page) * PAGE, content(page + round * 10_000));
      sizes.push(pagesOf(await store(head, memory, `c${round}`, `c${round - 1}`, 100)));
    }
    assert.deepEqual(sizes, [400, 400, 1000, 400]);
  });

  for (const [what, id, former] of [
    ['whose head holds another checkpoint', 'c1', 'other'],
    ['whose head is not known', 'c1', undefined],
  ] as const) {
    test(`begins anew with an image ${what}`, async () => {
      const head = join(folder, `anew-${String(former)}`);
      await store(head, steady(1000), 'c0');
      assert.equal(pagesOf(await store(head, steady(1000, 5), id, former)), 1000);
    });
  }

  test('begins anew where the index is cut off', async () => {
    const head = join(folder, 'cut');
    await store(head, steady(1000), 'c0');
    writeFileSync(join(head, indexFile), readFileSync(join(head, indexFile)).subarray(0, -1));
    assert.equal(pagesOf(await store(head, steady(1000), 'c1', 'c0')), 1000);
  });

  test('keeps a pagemap as it is that is not understood, and compares the others', async () => {
    const head = join(folder, 'strange');
    const image = join(folder, 'dump');
    const memory = new Map([...steady(1000), ['pagemap-2.img', new Map([[PAGE, content(3)]])] as const]);
    for (const [id, former] of [
      ['c0', undefined],
      ['c1', 'c0'],
    ] as const) {
      writeImage(image, memory);
      const path = join(image, 'pagemap-2.img');
      writeFileSync(path, Buffer.concat([readFileSync(path), Buffer.from([2, 0, 0, 0, 0x30, 1])]));
      mkdirSync(head, { recursive: true });
      await storeImage(head, { from: image, id, former, limit: 8, leastPages });
    }
    for (const name of ['pagemap-2.img', 'pages-2.img'])
      assert.deepEqual(readFileSync(join(head, 'image', name)), readFileSync(join(image, name)));
    assert.equal(statSync(join(head, 'image/pages-1.img')).size, 0);
  });

  test('that lacks an image says so', async () => {
    const head = join(folder, 'lost');
    await store(head, steady(1000), 'c0');
    const image = await store(head, steady(1000), 'c1', 'c0');
    assert.equal(await followChain(image), 1);
    rmSync(join(head, 'link-1'), { recursive: true });
    await assert.rejects(followChain(image), /is not whole: it refers to pages in .*link-1/);
  });
});
