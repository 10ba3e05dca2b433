import assert from 'node:assert/strict';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
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
import { fillRootfs } from '../support/rootfs.ts';
import {
  attempt,
  ctr,
  datasets,
  dev,
  image,
  importImage,
  must,
  readIfThere,
  refused,
  stack,
  stasis,
  until,
} from '../support/stack.ts';

suite('a container whose disk is on another snapshotter', () => {
  const web = uniqueName('foreign');
  before(async () => {
    await importImage();
    await must('ctr', ['images', 'unpack', '--snapshotter', 'overlayfs', image]).catch(() =>
      // Not every ctr can unpack what is there: running it does.
      ctr('run', '--rm', '--snapshotter', 'overlayfs', image, uniqueName(), 'true'),
    );
    await startWriter(web, { flags: ['--snapshotter', 'overlayfs'] });
  });
  after(() => removeAll(web));

  test('is checkpointed with memory and the diff of its writable layer, and is told that this costs more', async () => {
    const result = await attempt('stasis', ['checkpoint', web, '--name', 'c', '--require-memory']);
    assert.equal(result.exitCode, 0, result.stderr);
    assert.match(result.stdout + result.stderr, /overlayfs/);
    await progress(web, 2);
  });

  test('is rewound in place, memory and disk', async () => {
    const before = await progress(web, 100);
    writeFileSync(await inside(web, '/later'), 'x');
    await stasis('restore', web, '--snapshot', 'c', '--require-memory');
    assert.ok((await progress(web, 2)) < before);
    assert.equal(readIfThere(await inside(web, '/later')), undefined);
  });

  test('comes back after it was removed', async () => {
    await removeContainer(web);
    await stasis('restore', web, '--require-memory');
    await progress(web, 2);
  });
});

suite("a container that runs under containerd's own runtime", () => {
  const web = uniqueName('plain');
  before(async () => {
    await importImage();
    await startWriter(web, { flags: ['--runtime', 'io.containerd.runc.v2'] });
  });
  after(() => removeAll(web));

  test('is checkpointed disk only, and is told why', async () => {
    await refused(5, 'checkpoint', web, '--require-memory');
    const result = await attempt('stasis', ['checkpoint', web, '--name', 'c']);
    assert.equal(result.exitCode, 0, result.stderr);
    assert.match(result.stdout + result.stderr, /io\.containerd\.runc\.v2/);
    await progress(web, 2);
    assert.deepEqual(await checkpointsOf(web), ['c']);
  });

  test('and is rewound in place although nobody reads its streams any more', async () => {
    const name = uniqueName('streams');
    try {
      // Without --null-io it has FIFOs, whose reader goes with ctr.
      const plain = ['--runtime', 'io.containerd.runc.v2', '--snapshotter', 'stasis'];
      await ctr('run', '-d', ...plain, image, name, '/bin/perl', '/writer.pl', '0', '0.002');
      await progress(name, 3);
      await stasis('checkpoint', name, '--name', 'c');
      const pid = await pidOf(name);
      const restored = await attempt('stasis', ['restore', name], 20_000);
      assert.equal(restored.exitCode, 0, restored.stderr);
      assert.notEqual(await pidOf(name), pid);
      await progress(name, 3);
    } finally {
      await removeAll(name);
    }
  });
});

suite('a container from an OCI bundle', () => {
  const name = uniqueName('bundle');
  const bundle = mkdtempSync('/tmp/stasis-bundle-');
  after(async () => {
    await removeAll(name);
    rmSync(bundle, { recursive: true, force: true });
  });

  test('is created and started by stasis run, can be checkpointed, and leaves the bundle as it was', async () => {
    fillRootfs(join(bundle, 'rootfs'));
    for (const folder of ['proc', 'sys', 'dev', 'tmp'])
      mkdirSync(join(bundle, 'rootfs', folder), { recursive: true });
    cpSync(
      join(process.env['STASIS_CRIU'] ?? '', '../../../busybox/bin/busybox'),
      join(bundle, 'rootfs/bin/busybox'),
    );
    await stasis('spec', '--bundle', bundle);
    assert.match(await refused(4, 'spec', '--bundle', bundle), /config\.json/);
    const config = join(bundle, 'config.json');
    const spec = JSON.parse(readFileSync(config, 'utf8')) as {
      process: { args: string[]; terminal?: boolean };
    };
    spec.process.args = ['/bin/perl', '/writer.pl', '0', '0.002'];
    spec.process.terminal = false;
    writeFileSync(config, JSON.stringify(spec));
    const before = await must('find', [bundle, '-printf', '%p %s %T@\n']);
    await stasis('run', '--bundle', bundle, name);
    await progress(name, 3);
    await stasis('checkpoint', name, '--require-memory');
    await stasis('restore', name, '--require-memory');
    await progress(name, 3);
    assert.equal(await must('find', [bundle, '-printf', '%p %s %T@\n']), before);
    assert.match(await refused(4, 'run', '--bundle', bundle, name), new RegExp(name));
  });

  test('that is no bundle is refused, and nothing is made', async () => {
    const before = datasets();
    assert.match(await refused(3, 'run', '--bundle', '/nonexistent', uniqueName()), /\/nonexistent/);
    const empty = mkdtempSync('/tmp/stasis-bundle-');
    writeFileSync(join(empty, 'config.json'), '{"root":{"path":"rootfs"},"process":{"args":["true"]}}');
    assert.match(await refused(2, 'run', '--bundle', empty, uniqueName()), /rootfs/);
    rmSync(empty, { recursive: true });
    assert.deepEqual(datasets(), before);
  });
});

suite('when something is missing', () => {
  const web = uniqueName('web');
  before(async () => {
    await importImage();
    await startWriter(web, { megabytes: 48 });
  });
  after(() => removeAll(web));

  test('no room in the pool: the checkpoint fails, the container runs on, nothing is left', async () => {
    await stasis('checkpoint', web, '--name', 'disk', '--disk-only'); // makes the memory dataset
    const parent = `${stack.root}/containers/default/${web}/memory`;
    const used = Number(await must('zfs', ['get', '-Hp', '-o', 'value', 'used', parent]));
    const before = datasets().filter((name) => name.includes('@'));
    await must('zfs', ['set', `quota=${used + 4 * 1024 * 1024}`, parent]);
    try {
      const said = await refused(6, 'checkpoint', web, '--name', 'big');
      assert.match(said, /no room/);
      assert.doesNotMatch(said, new RegExp(stack.root), 'no dataset is named');
    } finally {
      await must('zfs', ['set', 'quota=none', parent]);
    }
    assert.deepEqual(
      datasets().filter((name) => name.includes('@')),
      before,
    );
    await progress(web, 2);
    await stasis('checkpoint', web, '--name', 'fits', '--require-memory');
    assert.deepEqual(await checkpointsOf(web), ['disk', 'fits']);
  });

  test('containerd not running: one clear line, and all works again when it is back', async () => {
    await dev('stop', 'containerd');
    try {
      assert.match(await refused(7, 'checkpoint', web), /containerd does not answer/);
      assert.match(await refused(7, 'ls'), /containerd does not answer/);
      const info = await attempt('stasis', ['info']);
      assert.match(info.stdout, /containerd/);
    } finally {
      await dev('start', 'containerd');
      await routed();
    }
    await until('the task to be taken up again', async () =>
      (await statusOf(web)) === 'RUNNING' ? true : undefined,
    );
    await progress(web, 2);
    await stasis('checkpoint', web, '--name', 'again', '--require-memory');
  });

  test('a mount source that is gone: the restore is refused before the container is touched', async () => {
    const name = uniqueName('bind');
    const folder = mkdtempSync('/tmp/stasis-bind-');
    try {
      await startContainer(
        name,
        ['/bin/perl', '/writer.pl', '0', '0.002'],
        ['--mount', `type=bind,src=${folder},dst=/mnt,options=rbind:ro`],
      );
      await progress(name, 3);
      await stasis('checkpoint', name, '--name', 'c');
      const pid = await pidOf(name);
      rmSync(folder, { recursive: true });
      assert.match(await refused(5, 'restore', name), new RegExp(folder));
      assert.equal(await pidOf(name), pid);
    } finally {
      await removeAll(name);
      if (existsSync(folder)) rmSync(folder, { recursive: true });
    }
  });
});
