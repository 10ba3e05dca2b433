import assert from 'node:assert/strict';
import { open } from 'node:fs/promises';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { directDump, directPreDump } from '../../../src/oci/direct-dump.ts';
import type { CheckpointOptions } from '../../../src/oci/types.ts';

const root = mkdtempSync(join(tmpdir(), 'stasis-direct-'));
after(() => rmSync(root, { recursive: true }));
mkdirSync(join(root, 'web'));
mkdirSync(join(root, 'image'));

const options: CheckpointOptions = {
  ...{ id: 'web', imageDir: join(root, 'image'), workDir: join(root, 'work'), leaveRunning: true },
  ...{ tcpEstablished: true, extUnixSk: true, fileLocks: true },
};

/** A container of runc's whose process is this test. */
const usual = {
  init_process_pid: process.pid,
  external_descriptors: ['/dev/null', 'pipe:[1234]', 'pipe:[1235]'],
  cgroup_paths: { freezer: '/sys/fs/cgroup/freezer/default/web' },
  config: {
    rootfs: '/bundle/rootfs',
    labels: ['bundle=/bundle'],
    mask_paths: ['/proc/version', '/proc/sys', '/proc/is-not-there'],
    uid_mappings: null,
    mounts: [
      { destination: '/proc', device: 'bind' },
      { destination: '/dev', device: 'tmpfs' },
    ],
    namespaces: [
      { type: 'NEWNS', path: '' },
      { type: 'NEWNET', path: '/proc/self/ns/net' },
    ],
  },
};

const dumped = async (state: unknown, more: Partial<CheckpointOptions> = {}) => {
  writeFileSync(join(root, 'web/state.json'), JSON.stringify(state));
  return directDump(root, { ...options, ...more });
};

test('CRIU is told what runc would tell it', async () => {
  const args = (await dumped(usual))?.args ?? [];
  const text = args.join(' ');
  assert.match(text, new RegExp(`^dump --tree ${process.pid} --leave-running `));
  assert.match(text, /--root \/bundle\/rootfs --manage-cgroups=soft --freeze-cgroup \S+\/default\/web/);
  assert.match(text, /--tcp-established --ext-unix-sk --file-locks/);
  const external = args.filter((_, at) => args[at - 1] === '--external');
  assert.deepEqual(external, [
    'mnt[/proc]:/proc',
    'mnt[/proc/version]:/dev/null',
    `net[${statSync('/proc/self/ns/net').ino}]:extRootNetNS`,
  ]);
  const descriptors: unknown = JSON.parse(readFileSync(join(root, 'image/descriptors.json'), 'utf8'));
  assert.deepEqual(descriptors, usual.external_descriptors);
});

test('cgroup v2 has one folder for all', async () => {
  const args = (await dumped({ ...usual, cgroup_paths: { '': '/sys/fs/cgroup/default/web' } }))?.args ?? [];
  assert.equal(args[args.indexOf('--freeze-cgroup') + 1], '/sys/fs/cgroup/default/web');
});

test('what is out of the usual is left to runc', async () => {
  const { config } = usual;
  const unusual = {
    'a terminal': { ...usual, external_descriptors: ['/dev/pts/0', '/dev/pts/0', '/dev/pts/0'] },
    'a user namespace': { ...usual, config: { ...config, uid_mappings: [{}] } },
    'a configuration of its own': { ...usual, config: { ...config, labels: ['org.criu.config=/etc/x'] } },
    'cgroup mounts': { ...usual, config: { ...config, mounts: [{ destination: '/sys', device: 'cgroup' }] } },
    'a bind that is not where it says': {
      ...usual,
      config: { ...config, mounts: [{ destination: '/is/not/there', device: 'bind' }] },
    },
    'a network namespace that is gone': {
      ...usual,
      config: { ...config, namespaces: [{ type: 'NEWNET', path: '/is/not/there' }] },
    },
    'a file of another form': { id: 'web' },
  };
  for (const [what, state] of Object.entries(unusual)) assert.equal(await dumped(state), undefined, what);
  assert.equal(await dumped(usual, { parentPath: '/before' }), undefined);
  assert.equal(await dumped(usual, { leaveRunning: false }), undefined);
  assert.equal(await dumped(usual, { emptyNs: ['network'] }), undefined);
  assert.equal(await directDump(root, { ...options, id: 'unknown' }), undefined);
});

test('a dump refers to the one before, and only then has the kernel told which pages have changed', async () => {
  const args = (await dumped(usual, { parentPath: '../pre-2' }))?.args.join(' ') ?? '';
  assert.match(args, / --track-mem --prev-images-dir \.\.\/pre-2( |$)/);
  assert.doesNotMatch((await dumped(usual))?.args.join(' ') ?? '', /--track-mem/);
});

test('a copy beforehand leaves the cgroup alone, and each but the first refers to the one before', async () => {
  const folders = { id: 'web', imageDir: join(root, 'pre-1'), workDir: join(root, 'work') };
  writeFileSync(join(root, 'web/state.json'), JSON.stringify(usual));
  const first = (await directPreDump(root, folders))?.args.join(' ') ?? '';
  assert.match(first, new RegExp(`^pre-dump --tree ${process.pid} --images-dir \\S+/pre-1 `));
  assert.match(first, / --track-mem( |$)/);
  assert.doesNotMatch(first, /--prev-images-dir|--freeze-cgroup|--leave-running|mnt\[/);
  const second = (await directPreDump(root, { ...folders, parentPath: '../pre-1' }))?.args ?? [];
  assert.equal(second[second.indexOf('--prev-images-dir') + 1], '../pre-1');
  const mapped = { ...usual, config: { ...usual.config, uid_mappings: [{}] } };
  writeFileSync(join(root, 'web/state.json'), JSON.stringify(mapped));
  assert.equal(await directPreDump(root, folders), undefined);
});

test('CRIU goes into a network namespace where all processes are in it and nothing in it has to be locked', async () => {
  const freezer = join(root, 'cgroup');
  mkdirSync(freezer);
  const pids = (...all: number[]): void => writeFileSync(join(freezer, 'cgroup.procs'), all.join('\n'));
  const namespaces = [{ type: 'NEWNET', path: '' }];
  const own = { ...usual, cgroup_paths: { freezer }, config: { ...usual.config, namespaces } };
  const entered = async (state: unknown, more: Partial<CheckpointOptions> = { networkIdle: true }) => {
    const direct = await dumped(state, more);
    assert.ok(direct);
    assert.equal(direct.args.includes('--empty-ns'), direct.networkOf === undefined);
    return direct.networkOf;
  };

  const other = spawn('unshare', ['--net', 'sh', '-c', 'echo; exec sleep 60']);
  try {
    await once(other.stdout, 'data');
    assert.ok(other.pid);
    pids(process.pid);
    assert.equal(await entered(own), process.pid);
    assert.equal(await entered(own, {}), undefined, 'there may be something to lock');
    assert.equal(
      await entered({ ...own, config: usual.config }),
      undefined,
      'one that was given by its path',
    );
    pids(process.pid, other.pid);
    assert.equal(await entered(own), undefined, 'two network namespaces');
    const held = await open('/proc/self/ns/net');
    pids(process.pid);
    assert.equal(await entered(own), undefined, 'one that is held open');
    await held.close();
    assert.equal(await entered(own), process.pid);
  } finally {
    other.kill('SIGKILL');
  }
});
