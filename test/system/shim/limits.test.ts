// What a container gets of the limits and settings that containerd was started with.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { defaultSpec } from '../../../src/cli/default-spec.ts';
import { Containerd, type NamespaceClient } from '../../../src/containerd/client.ts';
import type { Mount } from '../../../src/proto/gen/containerd/mount.ts';
import { Options } from '../../../src/proto/gen/containerd/runc_options.ts';
import { removeContainer, uniqueName } from '../support/container.ts';
import { endResidentShim } from '../support/process.ts';
import { ctr, image, importImage, must, runtime, stack, until } from '../support/stack.ts';

const SPEC = 'types.containerd.io/opencontainers/runtime-spec/1/';
const snapshotter = 'stasis';
/** Less than containerd has. */
const LIMIT = '2000';
const SHOW = ['/bin/sh', '-c', 'ulimit -Sn; ulimit -Hn'];

let folder: string;
let containerd: Containerd;
let api: NamespaceClient;

before(async () => {
  await importImage();
  folder = mkdtempSync(join(stack.state, 'data/tmp/limits-'));
  containerd = new Containerd(stack.address);
  api = containerd.namespace('default');
});
after(() => {
  containerd.close();
  rmSync(folder, { recursive: true });
});

/** A container whose specification says nothing of limits; `use` is given its process, for an exec. */
async function unlimited(
  type: string,
  use: (name: string, mounts: Mount[], process: object) => Promise<string[]>,
): Promise<string[]> {
  const name = uniqueName('limits');
  const key = `${name}-snapshot`;
  // For a record and the image's layers; the record is then replaced by one with another specification.
  await ctr('containers', 'create', '--runtime', type, '--snapshotter', snapshotter, image, name);
  try {
    const { container } = await api.containers.get({ id: name });
    const { process, ...spec } = defaultSpec(['/bin/sh', '-c', `${SHOW[2]}; exec sleep 600`]);
    const { rlimits: _, ...rest } = process;
    const value = Buffer.from(JSON.stringify({ ...spec, process: rest }));
    const parent = (await api.snapshots.stat({ snapshotter, key: name })).info?.parent ?? '';
    await api.containers.delete({ id: name });
    await api.snapshots.remove({ snapshotter, key: name }).catch(() => undefined); // the collector may be first
    // Nothing else keeps it from the collector until the record names it.
    const labels = { 'containerd.io/gc.root': new Date().toISOString() };
    const { mounts } = await api.snapshots.prepare({ snapshotter, key, parent, labels });
    await api.containers.create({
      container: {
        ...(container ?? assert.fail()),
        ...{ snapshotKey: key, spec: { typeUrl: `${SPEC}Spec`, value } },
      },
    });
    return await use(name, mounts, rest);
  } finally {
    await removeContainer(name);
    await api.snapshots.remove({ snapshotter, key }).catch(() => undefined);
  }
}

/** What a container's first process, and an exec in it, say of their limits. */
function limitsUnder(type: string, binaryName: string): Promise<string[]> {
  return unlimited(type, async (name, mounts, process) => {
    const logs = [join(folder, `${name}.init`), join(folder, `${name}.exec`)] as const;
    const streams = (log: string) => ({
      ...{ stdin: '', stdout: `file://${log}`, stderr: `file://${log}`, terminal: false },
    });
    const value = Buffer.from(Options.encode({ ...Options.decode(new Uint8Array()), binaryName }).finish());
    const options = { typeUrl: 'containerd.runc.v1.Options', value };
    const rest = { checkpoint: undefined, options, runtimePath: '' };
    await api.tasks.create({ containerId: name, rootfs: mounts, ...streams(logs[0]), ...rest });
    await api.tasks.start({ containerId: name, execId: '' });
    await api.tasks.exec({
      ...{ containerId: name, execId: 'e', ...streams(logs[1]) },
      spec: {
        typeUrl: `${SPEC}Process`,
        value: Buffer.from(JSON.stringify({ ...process, args: SHOW })),
      },
    });
    await api.tasks.start({ containerId: name, execId: 'e' });
    const read = (log: string): string | undefined => {
      const text = existsSync(log) ? readFileSync(log, 'utf8') : '';
      return text.split('\n').length > 2 ? text : undefined;
    };
    return [await until('the first', () => read(logs[0])), await until('the exec', () => read(logs[1]))];
  });
}

for (const [binary, soft] of [
  [process.env['STASIS_CRUN'], LIMIT],
  // One made with Go before 1.20 raises the limit itself, and its containers have that.
  [process.env['STASIS_RUNC'], undefined],
] as const) {
  test(`open files are limited as under containerd’s own shim by ${binary}`, async (t) => {
    const pid = readFileSync(join(stack.state, 'containerd.pid'), 'utf8').trim();
    const show = ['--nofile', '--noheadings', '--raw', '--output', 'SOFT,HARD'];
    const before = (await must('prlimit', ['--pid', pid, ...show])).trim().split(/\s+/).join(':');
    await endResidentShim('SIGTERM'); // the next one starts with the limit
    await must('prlimit', ['--pid', pid, `--nofile=${LIMIT}:${before.split(':')[1]}`]);
    t.after(async () => {
      await must('prlimit', ['--pid', pid, `--nofile=${before}`]);
      await endResidentShim('SIGTERM');
    });
    const theirs = await limitsUnder('io.containerd.runc.v2', binary ?? '');
    const ours = await limitsUnder(runtime, binary ?? '');
    // Go before 1.20, of which 1.6 is made, forgets the limit that it raised: its shim's containers have all that there is.
    const forgets = /^1\.6\./.test((await containerd.version()).replace(/^v/, ''));
    if (!forgets) assert.deepEqual(ours, theirs);
    const allowed = soft === undefined ? [LIMIT, before.split(':')[1]] : [soft];
    for (const said of ours)
      assert.ok(allowed.includes(said.split('\n')[0]), `${said} is none of ${allowed.join()}`);
  });
}

test('core scheduling that containerd asks for is set up, or refused with what the kernel says', async (t) => {
  // A start as containerd makes it: the shim leaves with its first and last Shutdown, or by SIGTERM.
  const bundle = join(folder, 'bundle');
  mkdirSync(bundle);
  const config = join(folder, 'config.toml');
  writeFileSync(config, `[daemon]\nrun_dir = "${join(folder, 'run')}"\n[shim]\nidle_timeout = 1\n`);
  const args = [
    '-namespace',
    'cores',
    '-address',
    '/nowhere',
    '-publish-binary',
    '/bin/true',
    '-id',
    'a',
    'start',
  ];
  const { stdout, stderr, status } = spawnSync(join(stack.project, 'dist/containerd-shim-stasis-v2'), args, {
    cwd: bundle,
    env: { ...process.env, STASIS_CONFIG: config, SCHED_CORE: '1' },
    input: '',
    encoding: 'utf8',
  });
  if (status === 0) {
    assert.match(stdout, /^unix:\/\//);
    const socket = stdout.slice('unix://'.length);
    await until('the shim to leave', () => (existsSync(socket) ? undefined : true));
  } else {
    t.diagnostic(`this kernel has none: ${stderr.trim()}`);
    assert.match(stderr, /PR_SCHED_CORE: E(INVAL|NODEV)/);
    assert.equal(stdout, '');
  }
});
