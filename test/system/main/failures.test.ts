import assert from 'node:assert/strict';
import { writeFileSync, mkdtempSync, rmdirSync } from 'node:fs';
import { after, before, suite, test } from 'node:test';
import {
  checkpointsOf,
  inside,
  pidOf,
  progress,
  removeAll,
  removeContainer,
  startContainer,
  startWriter,
  statusOf,
  uniqueName,
} from '../support/container.ts';
import { routed } from '../support/daemon.ts';
import {
  attempt,
  ctr,
  dev,
  datasets,
  importImage,
  must,
  readIfThere,
  refused,
  stasis,
  until,
} from '../support/stack.ts';

/** A process that CRIU cannot dump: it holds an io_uring. */
const undumpable = [
  '/bin/perl',
  '-e',
  'my $n = 0; my $p = "\\0" x 120; my $fd = syscall(425, 4, $p); die "io_uring_setup: $!" if $fd < 0; ' +
    'while (1) { $n++; open(my $f, ">", "/count"); print $f $n; close $f; select(undef, undef, undef, 0.02) }',
];

suite('a checkpoint that fails leaves the container running and nothing in the pool', () => {
  const web = uniqueName('web');
  before(async () => {
    await importImage();
    await startContainer(web, undumpable);
  });
  after(() => removeAll(web));

  async function counts(): Promise<void> {
    const read = async (): Promise<string | undefined> => readIfThere(await inside(web, '/count'));
    const first = await until('the first number', async () => (await read()) || undefined);
    await until('the next number', async () => ((await read()) !== first ? true : undefined));
  }

  test("where memory is required and CRIU cannot dump, with CRIU's own reason", async () => {
    await counts();
    const before = datasets();
    const pid = await pidOf(web);
    const said = await refused(5, 'checkpoint', web, '--require-memory');
    assert.match(said, new RegExp(web));
    assert.match(said, /io_uring|unsupported|dump/i);
    assert.deepEqual(
      datasets().filter((name) => name.includes('@')),
      before.filter((name) => name.includes('@')),
    );
    assert.equal(await pidOf(web), pid);
    assert.equal(await statusOf(web), 'RUNNING');
    await counts();
  });

  test('and without --require-memory the disk alone is kept, with a warning, and restores as a fresh start', async () => {
    const result = await attempt('stasis', ['checkpoint', web, '--name', 'disk']);
    assert.equal(result.exitCode, 0, result.stderr);
    assert.match(result.stderr + result.stdout, /memory was not dumped/);
    await counts();
    const pid = await pidOf(web);
    writeFileSync(await inside(web, '/mark'), 'after');
    const restored = await attempt('stasis', ['restore', web, '--snapshot', 'disk']);
    assert.equal(restored.exitCode, 0, restored.stderr);
    assert.notEqual(await pidOf(web), pid);
    assert.equal((await attempt('ls', [await inside(web, '/mark')])).exitCode === 0, false);
    await counts();
    await refused(5, 'restore', web, '--snapshot', 'disk', '--require-memory');
    await refused(5, 'clone', web, '--from', 'disk', '--require-memory');
    await refused(5, 'clone', web, '--require-memory');
    assert.deepEqual(await checkpointsOf(web), ['disk']);
  });
});

suite('containers that come and go', () => {
  before(importImage);

  test('a container that exits while it is checkpointed leaves a whole checkpoint or none, and no lock', async () => {
    for (let n = 0; n < 8; n++) {
      const name = uniqueName('brief');
      await startContainer(name, ['sh', '-c', `usleep ${n * 15000}`]);
      const result = await attempt('stasis', ['checkpoint', name, '--name', 'c']);
      const names = await checkpointsOf(name);
      if (result.exitCode === 0) assert.deepEqual(names, ['c']);
      else {
        assert.equal(result.exitCode, 5, result.stderr);
        assert.match(result.stderr, /not running|ended|exited|stopped|gone/i);
        assert.deepEqual(names, []);
      }
      await removeAll(name);
      assert.deepEqual(
        datasets().filter((dataset) => dataset.includes(name) && dataset.includes('@')),
        [],
      );
    }
  });

  for (const flags of [[], ['--snapshotter', 'overlayfs']]) {
    const where = flags[1] ?? 'stasis';
    test(`a restore that fails leaves the running container as it was, memory and disk, on ${where}`, async () => {
      await failToRestore(flags);
    });
  }

  async function failToRestore(flags: string[]): Promise<void> {
    const web = uniqueName('web');
    try {
      await startWriter(web, { flags });
      await stasis('checkpoint', web, '--name', 'c', '--require-memory');
      const grown = await progress(web, 50);
      await spoilMemory(web);
      const result = await attempt('stasis', ['restore', web, '--snapshot', 'c']);
      assert.notEqual(result.exitCode, 0, 'an image that is not whole does not restore');
      assert.match(result.stderr, new RegExp(web));
      const now = await progress(web, 3);
      assert.ok(now >= grown, `the container goes on from ${grown}, not from the checkpoint`);
      assert.deepEqual(await checkpointsOf(web), ['c']);
      const { labels = {} } = JSON.parse(await ctr('containers', 'info', web)) as { labels?: object };
      assert.doesNotMatch(JSON.stringify(labels), /stasis-former/);
      // One that its user has paused is paused afterwards, too.
      await ctr('tasks', 'pause', web);
      const again = await attempt('stasis', ['restore', web, '--snapshot', 'c']);
      assert.notEqual(again.exitCode, 0);
      assert.match(again.stderr, /was paused, and runs when it is restored/);
      assert.equal(await statusOf(web), 'PAUSED');
      await ctr('tasks', 'resume', web);
      assert.ok((await progress(web, 3)) >= now);
    } finally {
      await removeAll(web);
    }
  }

  /** Makes the latest checkpoint's image unreadable for CRIU, by making its memory snapshot anew without pages. */
  async function spoilMemory(name: string): Promise<void> {
    const snapshot = datasets().find((dataset) => dataset.includes(name) && dataset.endsWith('/memory@c'));
    const memory = snapshot?.split('@')[0] ?? '';
    const mountpoint = (await must('zfs', ['get', '-H', '-o', 'value', 'mountpoint', memory])).trim();
    const properties = (
      await must('zfs', ['get', '-H', '-s', 'local', '-o', 'property,value', 'all', `${memory}@c`])
    )
      .split('\n')
      .map((line) => line.split('\t'))
      .flatMap(([property, value]) =>
        property?.startsWith('stasis:') === true ? ['-o', `${property}=${value ?? ''}`] : [],
      );
    // The head was emptied when the snapshot had been made.
    const [copy, folder] = [`${memory.split('/')[0] ?? ''}/spoilt`, mkdtempSync('/tmp/stasis-spoilt-')];
    await must('zfs', ['clone', '-o', `mountpoint=${folder}`, `${memory}@c`, copy]);
    await must('cp', ['-a', `${folder}/.`, mountpoint]);
    // zfs-fuse hears of an unmount a little after the kernel has done it.
    await until('the copy to be destroyed', async () =>
      (await attempt('zfs', ['destroy', copy])).exitCode === 0 ? true : undefined,
    );
    rmdirSync(folder);
    await must('zfs', ['destroy', `${memory}@c`]);
    await must('sh', ['-c', `for f in "$1"/image/core-*.img; do : >"$f"; done`, '-', mountpoint]);
    await must('zfs', ['snapshot', ...properties, `${memory}@c`]);
    await dev('restart', 'stasisd'); // it still has the image in memory
    await routed();
  }
});

suite('bad input is refused with one clear line, and changes nothing', () => {
  const web = uniqueName('web');
  before(async () => {
    await importImage();
    await startWriter(web);
    await stasis('checkpoint', web, '--name', 'taken');
  });
  after(() => removeAll(web));

  test('unknown containers, checkpoints and namespaces', async () => {
    const before = datasets();
    assert.match(await refused(3, 'checkpoint', 'nobody'), /nobody/);
    assert.match(await refused(3, 'restore', 'nobody'), /nobody/);
    assert.match(await refused(3, 'clone', 'nobody'), /nobody/);
    assert.match(await refused(3, 'rm', 'nobody', 'c'), /no container nobody/);
    assert.match(await refused(3, 'wait', 'nobody'), /no container nobody/);
    assert.match(await refused(3, 'restore', web, '--snapshot', 'nothing'), /nothing.*\n?.*taken/);
    assert.match(await refused(3, 'rm', web, 'nothing'), /nothing/);
    const calls = [
      ['checkpoint', web],
      ['restore', web],
      ['clone', web, '--from', 'taken'],
      ['inspect', web],
      ['rm', web, 'taken'],
      ['doctor', web],
    ];
    for (const call of calls)
      assert.match(
        await refused(3, '--namespace', 'elsewhere', ...call),
        /^stasis: there is no namespace elsewhere\n {2}next: see which there are/,
      );
    for (const call of ['info', 'ls', 'doctor'])
      assert.match(
        await refused(5, '--address', '/run/nowhere.sock', call),
        /serves the containerd at .*, not \/run\/nowhere\.sock/,
      );
    assert.deepEqual(datasets(), before);
  });

  test('a checkpoint name that is taken', async () => {
    assert.match(await refused(4, 'checkpoint', web, '--name', 'taken'), /taken/);
    assert.deepEqual(await checkpointsOf(web), ['taken']);
  });

  test('hostile names, in every place where a name goes', async () => {
    const before = datasets();
    for (const name of [
      '../x',
      'a/b',
      'a@b',
      'a b',
      '-rf',
      'a\nb',
      '$(id)',
      "a'b",
      'ü',
      '%s',
      'x'.repeat(300),
    ]) {
      await refused(2, 'checkpoint', '--name', name, '--', web).catch((error: unknown) => {
        throw new Error(`--name ${JSON.stringify(name)}`, { cause: error });
      });
      await refused(2, 'restore', '--as', name, '--', web);
      await refused(2, 'checkpoint', '--', name);
      await refused(2, 'rm', '--', web, name);
    }
    assert.deepEqual(datasets(), before);
  });

  test('a container that does not run', async () => {
    const idle = uniqueName('idle');
    await ctr(
      'containers',
      'create',
      '--snapshotter',
      'stasis',
      '--runtime',
      'io.containerd.stasis.v2',
      'docker.io/stasis/test:latest',
      idle,
      'true',
    );
    try {
      assert.match(await refused(5, 'checkpoint', idle), new RegExp(`${idle}.*not running`));
      await stasis('checkpoint', idle, '--disk-only', '--name', 'disk');
      assert.deepEqual(await checkpointsOf(idle), ['disk']);
    } finally {
      await removeAll(idle);
    }
  });

  test('a stasisd that is not there', async () => {
    assert.match(await refused(7, '--socket', '/run/nowhere.sock', 'ls'), /nowhere/);
  });

  test('checkpoint --exit ends the container once the checkpoint is safe, and it comes back', async () => {
    await stasis('checkpoint', web, '--name', 'last', '--exit', '--require-memory');
    await until('the task to be stopped', async () =>
      (await statusOf(web)) === 'STOPPED' ? true : undefined,
    );
    await stasis('restore', web, '--snapshot', 'last', '--require-memory');
    await progress(web, 2);
    await removeContainer(web);
  });
});
