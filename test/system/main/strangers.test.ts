import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkpointsOf, pidOf, progress, removeAll, startWriter, uniqueName } from '../support/container.ts';
import { routed } from '../support/daemon.ts';
import { buildImage } from '../support/image.ts';
import {
  attempt,
  ctr,
  datasets,
  dev,
  importImage,
  must,
  refused,
  stack,
  stasis,
  until,
} from '../support/stack.ts';

/** A containerd with an empty database whose snapshotter `stasis` leads to this stack's stasisd. */
class SecondContainerd {
  readonly folder = mkdtempSync('/tmp/second-');
  readonly address: string;
  #child: ChildProcess | undefined;

  /** @param address where it listens; an own one where left out */
  constructor(address?: string) {
    this.address = address ?? join(this.folder, 'c.sock');
  }

  async start(): Promise<void> {
    const config = join(this.folder, 'config.toml');
    mkdirSync(join(this.folder, 'root'));
    writeFileSync(
      config,
      `version = 2
root = "${this.folder}/root"
state = "${this.folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.internal.v1.tracing"]
[grpc]
  address = "${this.address}"
[ttrpc]
  address = "${this.folder}/c.sock.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "${this.folder}/opt"
[proxy_plugins.stasis]
  type = "snapshot"
  address = "${process.env['STASIS_ADDRESS'] ?? ''}"
`,
    );
    this.#child = spawn('containerd', ['--config', config], { stdio: 'ignore' });
    await until('the second containerd to answer', async () =>
      (await this.ctr('version')).exitCode === 0 ? true : undefined,
    );
  }

  ctr(...args: string[]) {
    return attempt('ctr', ['--address', this.address, ...args]);
  }

  async stop(): Promise<void> {
    this.#child?.kill('SIGTERM');
    await until('the second containerd to end', () =>
      this.#child === undefined || this.#child.exitCode !== null || this.#child.signalCode !== null
        ? true
        : undefined,
    );
    rmSync(this.folder, { recursive: true, force: true });
  }
}

suite('strangers at the pool', () => {
  const web = uniqueName('web');
  /** What other tests removed goes at any time. */
  const own = (): string[] => {
    const found = datasets().filter((dataset) => dataset.includes(web));
    assert.ok(found.length >= 4, 'a disk, a memory and a snapshot of each');
    return found;
  };
  before(async () => {
    await importImage();
    await startWriter(web);
    await stasis('checkpoint', web, '--name', 'kept', '--require-memory');
  });
  after(() => removeAll(web));

  test('a second containerd with an empty database makes nothing vanish, whatever its garbage collector does', async () => {
    const second = new SecondContainerd();
    await second.start();
    try {
      const before = own();
      const listed = await second.ctr('snapshots', '--snapshotter', 'stasis', 'ls');
      assert.doesNotMatch(listed.stdout, /sha256/, 'it sees no snapshot that is not its own');
      const made = await second.ctr('snapshots', '--snapshotter', 'stasis', 'prepare', 'mine');
      assert.notEqual(made.exitCode, 0);
      assert.match(made.stderr, /serves the containerd at/);
      await second.ctr('leases', 'create', '--id', 'l');
      await second.ctr('leases', 'rm', '--sync', 'l');
      await sleep(500);
      assert.deepEqual(own(), before);
      await progress(web, 1);
      assert.deepEqual(await checkpointsOf(web), ['kept']);
    } finally {
      await second.stop();
    }
  });

  test('a containerd that comes back at the same address with an empty root makes nothing vanish either', async () => {
    const before = own();
    await dev('stop', 'containerd');
    try {
      const empty = new SecondContainerd(stack.address);
      await empty.start();
      try {
        // Its collector looks through a snapshotter once something of it was removed.
        const snapshots = ['snapshots', '--snapshotter', 'stasis'];
        await until('it to reach stasisd', async () =>
          (await empty.ctr(...snapshots, 'prepare', 'mine')).exitCode === 0 ? true : undefined,
        );
        assert.equal((await empty.ctr(...snapshots, 'rm', 'mine')).exitCode, 0);
        await empty.ctr('leases', 'create', '--id', 'l');
        await empty.ctr('leases', 'rm', '--sync', 'l');
        await sleep(500);
        assert.deepEqual(own(), before);
      } finally {
        await empty.stop();
      }
    } finally {
      await dev('start', 'containerd');
    }
    await routed();
    await progress(web, 1);
    assert.deepEqual(await checkpointsOf(web), ['kept']);
    assert.match(await ctr('snapshots', '--snapshotter', 'stasis', 'ls'), new RegExp(web));
  });

  test('a containerd whose database was lost while its UUID stayed makes nothing vanish, and all is as it was when that is back', async () => {
    const file = join(stack.state, 'data/containerd/io.containerd.metadata.v1.bolt/meta.db');
    const layers = (): string[] => datasets().filter((dataset) => dataset.includes('/layers/'));
    const states = (): Promise<string> =>
      must('zfs', ['get', '-H', '-r', '-s', 'local', 'stasis:state', `${stack.root}/layers`]);
    const before = [...own(), ...layers()];
    const marks = await states();
    const snapshots = ['snapshots', '--snapshotter', 'stasis'];
    await dev('stop', 'containerd');
    renameSync(file, `${file}.aside`);
    // Blobs that the new database does not know are collected by containerd: those of the images of all other tests.
    const blobs = join(stack.state, 'data/containerd/io.containerd.content.v1.content');
    await must('cp', ['-al', blobs, `${blobs}.aside`]);
    try {
      await dev('start', 'containerd');
      await until('it to reach stasisd', async () =>
        (await attempt('ctr', [...snapshots, 'prepare', 'mine'])).exitCode === 0 ? true : undefined,
      );
      assert.doesNotMatch(await ctr(...snapshots, 'ls'), /sha256/, 'it is a new database');
      await ctr(...snapshots, 'rm', 'mine');
      await ctr('leases', 'create', '--id', 'l');
      await ctr('leases', 'rm', '--sync', 'l');
      await sleep(500);
      assert.deepEqual([...own(), ...layers()], before);
      assert.match(await stasis('adopt', '--dry-run'), new RegExp(`containers/default/${web} `));
      assert.equal(await states(), marks, 'nothing is removed');
      const folder = mkdtempSync(join(stack.state, 'data/tmp/image-'));
      buildImage(join(folder, 'image.tar'), folder);
      await ctr('images', 'import', '--snapshotter', 'stasis', join(folder, 'image.tar'));
      rmSync(folder, { recursive: true });
      await dev('stop', 'containerd');
      await dev('start', 'containerd');
      await routed();
      await ctr('leases', 'create', '--id', 'l');
      await ctr('leases', 'rm', '--sync', 'l');
      await sleep(500);
      const left = datasets();
      for (const dataset of before) assert.ok(left.includes(dataset), `${dataset} outlives the new database`);
    } finally {
      await dev('stop', 'containerd');
      renameSync(`${file}.aside`, file);
      rmSync(blobs, { recursive: true });
      renameSync(`${blobs}.aside`, blobs);
      await dev('start', 'containerd');
    }
    await until('stasisd to see the former database', async () =>
      (await attempt('ctr', [...snapshots, 'mounts', '/mm', web])).exitCode === 0 ? true : undefined,
    );
    assert.match(await ctr(...snapshots, 'ls'), new RegExp(web));
    assert.doesNotMatch(await stasis('adopt', '--dry-run'), new RegExp(web));
    assert.deepEqual(await checkpointsOf(web), ['kept']);
    await stasis('restore', web, '--snapshot', 'kept', '--require-memory');
    await progress(web, 1);
  });

  test('a second stasisd on the same pool refuses to start, and touches nothing', async () => {
    const folder = mkdtempSync('/tmp/second-');
    try {
      const config = readFileSync(stack.config, 'utf8').replace(/run_dir = .*/, `run_dir = "${folder}/run"`);
      writeFileSync(join(folder, 'config.toml'), config);
      const before = own();
      const result = await attempt('env', [`STASIS_CONFIG=${folder}/config.toml`, 'stasisd'], 20_000);
      assert.equal(result.exitCode, 1);
      assert.match(result.stderr, /another stasisd, process \d+, serves/);
      assert.deepEqual(own(), before);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  test('a stasisd with a wrong key in its configuration says where, and does not start', async () => {
    const folder = mkdtempSync('/tmp/second-');
    try {
      writeFileSync(join(folder, 'config.toml'), '[zfs]\nroot = "x"\npol = "y"\n');
      const result = await attempt('env', [`STASIS_CONFIG=${folder}/config.toml`, 'stasisd'], 20_000);
      assert.equal(result.exitCode, 78);
      assert.match(result.stderr, /config\.toml:3: unknown key zfs\.pol/);
      writeFileSync(join(folder, 'config.toml'), '[zfs]\nroot = "nopool/stasis"\n');
      const missing = await attempt('env', [`STASIS_CONFIG=${folder}/config.toml`, 'stasisd'], 20_000);
      assert.equal(missing.exitCode, 1);
      assert.match(missing.stderr, /no pool nopool/);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  test("snapshots that somebody else made on a container's dataset are left alone", async () => {
    const { containers } = JSON.parse(await must('stasis', ['ls', web, '--json'])) as {
      containers: { disks: { dataset: string; current: boolean }[] }[];
    };
    const dataset = containers[0]?.disks.find((disk) => disk.current)?.dataset ?? '';
    await must('zfs', ['snapshot', `${dataset}@zrepl_1`]);
    await stasis('restore', web, '--snapshot', 'kept');
    assert.ok(datasets().includes(`${dataset}@zrepl_1`));
    assert.deepEqual(await checkpointsOf(web), ['kept']);
    await must('zfs', ['destroy', `${dataset}@zrepl_1`]);
  });

  test('a snapshot that was removed under a running container is found before it is stopped for a rewind', async () => {
    const name = uniqueName('strange');
    try {
      await startWriter(name);
      await stasis('checkpoint', name, '--name', 'c');
      const pid = await pidOf(name);
      await ctr('snapshots', '--snapshotter', 'stasis', 'rm', name);
      assert.match((await attempt('stasis', ['doctor', name])).stdout, /its disk is not in/);
      assert.match(await refused(5, 'restore', name), new RegExp(`${name} has no disk in .* to rewind`));
      assert.equal(await pidOf(name), pid);
      await progress(name, 3);
    } finally {
      await removeAll(name);
    }
  });

  test('a checkpoint whose snapshot somebody has destroyed is told so, what ran goes on, and the rest can be removed', async () => {
    const name = uniqueName('strange');
    try {
      await startWriter(name);
      await stasis('checkpoint', name, '--name', 'c', '--require-memory');
      const snapshot = datasets().find((dataset) => dataset.endsWith(`/${name}@c`)) ?? '';
      await must('zfs', ['destroy', snapshot]);
      const ahead = await progress(name, 30);
      assert.match(await refused(3, 'restore', name), /the disk of the checkpoint is gone: .*stasis rm/s);
      assert.ok((await progress(name, 3)) >= ahead, 'it goes on with its memory');
      assert.match(await refused(3, 'clone', name, '--from', 'c'), /the disk of the checkpoint is gone/);
      await stasis('rm', name, 'c');
      assert.deepEqual(await checkpointsOf(name), []);
      assert.deepEqual(
        datasets().filter((dataset) => dataset.includes(name) && dataset.includes('@')),
        [],
      );
    } finally {
      await removeAll(name);
    }
  });
});
