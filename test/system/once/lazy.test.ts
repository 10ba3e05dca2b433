import assert from 'node:assert/strict';
import { existsSync, lstatSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { inside, pidOf, removeAll, removeContainer, statusOf, uniqueName } from '../support/container.ts';
import { startPython } from '../support/debian.ts';
import {
  filled,
  fillingOf,
  goOn,
  nothingLeft,
  pageServer,
  removeSlow,
  restoreHeld,
  slow,
  watchedMemory,
} from '../support/filling.ts';
import { ended, signal } from '../support/process.ts';
import { staging } from '../support/staging.ts';
import {
  attempt,
  ctr,
  datasets,
  dev,
  readIfThere,
  refused,
  stasis,
  stack,
  stasisdPid,
  until,
} from '../support/stack.ts';

const MEGABYTES = 96;

after(removeSlow);

/** Has a container look at all of its memory. @throws with its own words where that is not what it was */
async function checkMemory(name: string, file = '/checked'): Promise<void> {
  writeFileSync(await inside(name, '/check'), '');
  const said = await until(
    `${name} to look at its memory`,
    async () => readIfThere(await inside(name, file)) || undefined,
  );
  assert.equal(said, 'good', name);
  assert.equal(readIfThere(await inside(name, '/torn')), undefined);
}

function isLink(path: string): boolean {
  return lstatSync(path).isSymbolicLink();
}

async function counts(name: string): Promise<void> {
  const read = async (): Promise<string> => readFileSync(await inside(name, '/count'), 'latin1');
  const first = await read();
  await until(`${name} to count on`, async () => ((await read()) === first ? undefined : true));
}

suite('memory that comes in while the restored container runs', () => {
  const source = uniqueName('lazy');
  const copies = ['a', 'b', 'c', 'd', 'e', 'f'].map((letter) => `${source}-${letter}`);
  const [copy = '', second = '', killed = ''] = copies;
  after(() => removeAll(...copies, source));

  test('is all there in the end, under writes from the first moment on, and nothing of the way is left', async () => {
    await startPython(source, watchedMemory(MEGABYTES), [], 'check_all()');
    await stasis('checkpoint', source, '--name', 'c', '--require-memory');
    const server = await restoreHeld(copy, () =>
      stasis('restore', source, '--snapshot', 'c', '--as', copy, '--lazy'),
    );
    const filling = await fillingOf(copy);
    assert.equal(filling?.checkpoint, `${source}@c`);
    assert.ok(
      filling.totalBytes > MEGABYTES * 2 ** 20 && filling.doneBytes < filling.totalBytes / 2,
      JSON.stringify(filling),
    );
    assert.match(await stasis('ls', copy), /running, memory coming in/);
    slow(server, 100);
    await filled(copy);
    await counts(copy);
    await checkMemory(copy);
    await ended(server);
    await nothingLeft();
    await removeContainer(copy);
  });

  test('comes from a checkpoint that cannot be removed meanwhile, and exec, pause and resume work', async () => {
    await restoreHeld(copy, () => stasis('restore', source, '--snapshot', 'c', '--as', copy, '--lazy'));
    assert.match(await refused(5, 'rm', source, 'c'), new RegExp(`memory of container ${copy} is still`));
    assert.equal(await ctr('tasks', 'exec', '--exec-id', 'e', copy, 'echo', 'works'), 'works\n');
    goOn();
    await ctr('tasks', 'pause', copy);
    assert.equal(await statusOf(copy), 'PAUSED');
    await filled(copy);
    await ctr('tasks', 'resume', copy);
    await counts(copy);
    await checkMemory(copy);
    await removeContainer(copy);
  });

  test('is waited for by a checkpoint, which then holds all of it', async () => {
    await restoreHeld(copy, () => stasis('restore', source, '--snapshot', 'c', '--as', copy, '--lazy'));
    const taken = stasis('checkpoint', copy, '--name', 'again', '--require-memory');
    await sleep(1000);
    assert.notEqual(await fillingOf(copy), null);
    goOn();
    await taken;
    await stasis('restore', copy, '--snapshot', 'again', '--eager');
    await checkMemory(copy);
    await removeAll(copy);
  });

  test('that was lost with its page server ends the container, which says so, and no page was read as zeros', async () => {
    const server = await restoreHeld(killed, () =>
      stasis('restore', source, '--snapshot', 'c', '--as', killed, '--lazy'),
    );
    const pid = (await pidOf(killed)) ?? 0;
    const root = datasets().find((dataset) => dataset.endsWith(`/${killed}`)) ?? '';
    await sleep(1000);
    assert.notEqual(pageServer(killed), undefined, 'it is in the middle');
    signal(server, 'SIGKILL');
    await ended(pid);
    await until('its end', async () => ((await statusOf(killed)) === 'STOPPED' ? true : undefined));
    const filling = await fillingOf(killed);
    assert.match(filling?.lost ?? '', /page server has ended: killed by SIGKILL/);
    assert.match(await stasis('ls', killed), /stopped, memory lost/);
    const folder = await attempt('zfs', ['get', '-H', '-o', 'value', 'mountpoint', root]);
    assert.equal(readIfThere(`${folder.stdout.trim()}/torn`), undefined);
    assert.match(await refused(5, 'checkpoint', killed), /not running|without its memory/);
    await removeContainer(killed);
    await nothingLeft();
  });

  test('of a container that is killed, or removed, takes its page server along', async () => {
    const server = await restoreHeld(killed, () =>
      stasis('restore', source, '--snapshot', 'c', '--as', killed, '--lazy'),
    );
    await ctr('tasks', 'kill', '-s', 'SIGKILL', killed);
    await ended(server);
    await removeContainer(killed);
    await nothingLeft();
  });

  test('goes on when stasisd is killed, keeps its checkpoint, and the next stasisd takes the rest away', async () => {
    await restoreHeld(second, () => stasis('restore', source, '--snapshot', 'c', '--as', second, '--lazy'));
    const daemon = stasisdPid();
    signal(daemon, 'SIGKILL');
    await ended(daemon);
    await dev('start', 'stasisd');
    assert.match(await refused(5, 'rm', source, 'c'), new RegExp(`memory of container ${second} is still`));
    assert.notEqual(await fillingOf(second), null);
    goOn();
    await filled(second);
    await checkMemory(second);
    await nothingLeft();
    await removeContainer(second);
  });

  test('of three clones at once comes in for each of them', async () => {
    const names = copies.slice(3);
    await stasis('clone', source, '--from', 'c', '--count', '3', '--name', `${source}-x{}`, '--lazy');
    const clones = names.map((_, n) => `${source}-x${n + 1}`);
    try {
      for (const clone of clones) await filled(clone);
      for (const clone of clones) await counts(clone);
      await Promise.all(clones.map((clone) => checkMemory(clone)));
    } finally {
      await removeAll(...clones);
    }
    await nothingLeft();
  });

  test('is read by the small files that a reader before has left, whether at once or while it runs, and those may go', async () => {
    const image = (name: string): string => join(stack.state, 'run/staging', name, 'image');
    const leads = (name: string): boolean =>
      existsSync(image(name)) && readdirSync(image(name)).some((file) => isLink(join(image(name), file)));
    await stasis('restore', source, '--snapshot', 'c', '--as', copy, '--eager');
    await checkMemory(copy);
    await removeContainer(copy);
    await restoreHeld(copy, () => stasis('restore', source, '--snapshot', 'c', '--as', copy, '--lazy'));
    const lent = [...staging()].filter(leads);
    assert.equal(lent.length, 1, 'an image of which the pages are in the pool');
    const daemon = stasisdPid();
    signal(daemon, 'SIGKILL');
    await ended(daemon);
    await dev('start', 'stasisd');
    assert.deepEqual([...staging()].filter(leads), []);
    goOn();
    await filled(copy);
    await checkMemory(copy);
    await nothingLeft();
    await removeContainer(copy);
  });

  test('also in a rewind, which a second one may follow at once', async () => {
    for (let n = 0; n < 3; n++) await stasis('restore', source, '--snapshot', 'c', '--lazy');
    await filled(source);
    await checkMemory(source);
    await nothingLeft();
  });
});

/** Memory of a number of pages, each of which tells its own number. */
const anonymous = `
PAGE = 4096
CHUNK = 2048
libc.mremap.restype = ctypes.c_void_p
libc.mmap.restype = ctypes.c_void_p
def anonymous(pages, first):
    address = libc.mmap(None, ctypes.c_size_t(pages * PAGE), 3, 0x22, -1, ctypes.c_long(0))
    for page in range(pages): ctypes.c_uint64.from_address(address + page * PAGE).value = first + page
    return address
def number(address): return ctypes.c_uint64.from_address(address).value`;

/** What the kernel tells a page server of that knows its tasks only by their memory: userfaultfd(2), UFFD_EVENT_*. */
const changing = `${anonymous}
# mapped before what is written to, and so above it: it comes in last
apart = anonymous(CHUNK, 6 << 32)
${watchedMemory(MEGABYTES)}
moved, cut, dropped, split, shared = [anonymous(CHUNK, (n + 1) << 32) for n in range(5)]
def change():
    # moved to another place
    to = libc.mremap(ctypes.c_void_p(moved), ctypes.c_size_t(CHUNK * PAGE), ctypes.c_size_t(2 * CHUNK * PAGE), 1)
    assert to not in (None, -1, 2 ** 64 - 1), 'mremap'
    # the second half unmapped
    assert libc.munmap(ctypes.c_void_p(cut + CHUNK // 2 * PAGE), ctypes.c_size_t(CHUNK // 2 * PAGE)) == 0
    # a part given back, which is zeros then
    assert libc.madvise(ctypes.c_void_p(dropped + 100 * PAGE), ctypes.c_size_t(500 * PAGE), 4) == 0
    # every eighth page with other rights: mappings come apart
    for page in range(0, CHUNK, 8):
        for area in (split, apart):
            assert libc.mprotect(ctypes.c_void_p(area + page * PAGE), ctypes.c_size_t(PAGE), 1) == 0
    # children that read what has not come in yet
    children = []
    for n in range(4):
        child = os.fork()
        if child == 0:
            good = all(number(shared + page * PAGE) == (5 << 32) + page for page in range(n, CHUNK, 4))
            os._exit(0 if good else 1)
        children.append(child)
    for page in range(CHUNK):
        assert number(to + page * PAGE) == (1 << 32) + page, f'moved {page}'
        assert number(to + (CHUNK + page) * PAGE) == 0, f'grown {page}'
        if page < CHUNK // 2: assert number(cut + page * PAGE) == (2 << 32) + page, f'cut {page}'
        gone = 100 <= page < 600
        assert number(dropped + page * PAGE) == (0 if gone else (3 << 32) + page), f'dropped {page}'
        assert number(split + page * PAGE) == (4 << 32) + page, f'split {page}'
        assert number(shared + page * PAGE) == (5 << 32) + page, f'shared {page}'
    for child in children: assert os.waitpid(child, 0)[1] == 0, 'a child'
def changer():
    while not os.path.exists('/go'): time.sleep(0.002)
    try:
        change()
        said('/changed', 'good')
    except BaseException:
        said('/changed', traceback.format_exc())
threading.Thread(target=changer, daemon=True).start()`;

suite('processes that change their memory, or their number, while it comes in', () => {
  const source = uniqueName('changing');
  const copy = `${source}-copy`;
  after(() => removeAll(copy, source));

  test('have all of it: after mremap, munmap, madvise, mprotect and fork', async () => {
    const rest =
      'check_all()\nassert all(number(apart + page * PAGE) == (6 << 32) + page for page in range(CHUNK))';
    await startPython(source, changing, [], rest);
    await stasis('checkpoint', source, '--name', 'c', '--require-memory');
    const server = await restoreHeld(copy, () =>
      stasis('restore', source, '--snapshot', 'c', '--as', copy, '--lazy'),
    );
    writeFileSync(await inside(copy, '/go'), '');
    slow(server, 100);
    const said = await until(
      'the changes',
      async () => readIfThere(await inside(copy, '/changed')) || undefined,
    );
    assert.equal(said, 'good');
    await filled(copy);
    await checkMemory(copy);
    await nothingLeft();
  });
});

/** While a process forks, the kernel refuses what the page server brings, also to whoever asked for it. */
const dividing = `${anonymous}
apart = anonymous(CHUNK, 6 << 32)
${watchedMemory(MEGABYTES)}
def divider():
    while not os.path.exists('/go'): time.sleep(0.002)
    for page in range(0, CHUNK, 8):
        assert libc.mprotect(ctypes.c_void_p(apart + page * PAGE), ctypes.c_size_t(PAGE), 1) == 0
        time.sleep(0.01)
def forker():
    while not os.path.exists('/go'): time.sleep(0.002)
    while not os.path.exists('/check'):
        child = os.fork()
        if child == 0: os._exit(0)
        os.waitpid(child, 0)
for job in (divider, forker): threading.Thread(target=job, daemon=True).start()`;

suite(
  'processes that divide their mappings and fork all the time, while the page server is turning in circles',
  () => {
    const source = uniqueName('dividing');
    const copies = ['a', 'b'].map((letter) => `${source}-${letter}`);
    after(() => removeAll(...copies, source));

    test('have all of their memory in the end', async () => {
      const rest =
        'check_all()\nassert all(number(apart + page * PAGE) == (6 << 32) + page for page in range(CHUNK))';
      await startPython(source, dividing, [], rest);
      await stasis('checkpoint', source, '--name', 'c', '--require-memory');
      for (const copy of copies) {
        const server = await restoreHeld(copy, () =>
          stasis('restore', source, '--snapshot', 'c', '--as', copy, '--lazy'),
        );
        writeFileSync(await inside(copy, '/go'), '');
        slow(server, 100);
        await filled(copy);
        await checkMemory(copy);
        await removeContainer(copy);
      }
      await nothingLeft();
    });
  },
);

const several = `
children = []
for n in range(3):
    child = os.fork()
    if child != 0: continue
    try:
${watchedMemory(32).replace(/^/gm, '        ')}
        said(f'/ready.{n}', 'ready')
        while not os.path.exists('/check'): time.sleep(0.02)
        check_all()
        said(f'/checked.{n}', 'good')
    except BaseException:
        said(f'/checked.{n}', traceback.format_exc())
    while True: time.sleep(1)
for n in range(3):
    while not os.path.exists(f'/ready.{n}'): time.sleep(0.02)`;

suite('a container of several processes', () => {
  const source = uniqueName('several');
  const copy = `${source}-copy`;
  after(() => removeAll(copy, source));

  test('has the memory of each', async () => {
    await startPython(source, several);
    await stasis('checkpoint', source, '--name', 'c', '--require-memory');
    const server = await restoreHeld(copy, () =>
      stasis('restore', source, '--snapshot', 'c', '--as', copy, '--lazy'),
    );
    slow(server, 100);
    await filled(copy);
    for (let n = 0; n < 3; n++) await checkMemory(copy, `/checked.${n}`);
    await nothingLeft();
  });
});

suite('a small image', () => {
  const source = uniqueName('small');
  after(() => removeAll(`${source}-1`, source));

  test('is read before the container runs, unless it is insisted on', async () => {
    await startPython(source, watchedMemory(1), [], 'check_all()');
    await stasis('checkpoint', source, '--name', 'c', '--require-memory');
    const lazy = async (...flags: string[]): Promise<boolean | undefined> => {
      const said = await stasis('clone', source, '--from', 'c', '--json', '--name', `${source}-1`, ...flags);
      const { clones } = JSON.parse(said) as { clones: { lazy: boolean }[] };
      await filled(`${source}-1`);
      await removeContainer(`${source}-1`);
      return clones[0]?.lazy;
    };
    assert.equal(await lazy(), false);
    assert.equal(await lazy('--eager'), false);
    assert.equal(await lazy('--lazy'), true);
    assert.match(await refused(2, 'clone', source, '--lazy', '--eager'), /cannot be used with/);
    assert.match(await stasis('info'), /lazy-restore +possible/);
    assert.notEqual(stack.root, '');
  });
});
