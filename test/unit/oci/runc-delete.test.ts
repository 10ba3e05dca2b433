import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite, test, type TestContext } from 'node:test';
import { directDeleteOf } from '../../../src/oci/direct-delete.ts';
import { deleteOfRunc, knowsDeleteOfRunc } from '../../../src/oci/runc-delete.ts';

/** Of a process that has ended and was waited for. */
const { pid: gone } = spawnSync('true');

/** What runc keeps of a usual container whose first process has ended, and folders that stand for its cgroup. */
function setUp(t: TestContext) {
  const base = mkdtempSync(join(tmpdir(), 'stasis-delete-'));
  t.after(() => rmSync(base, { recursive: true, force: true }));
  const folder = join(base, 'web');
  const hierarchies = join(base, 'cgroup');
  const cgroups = ['memory', 'pids'].map((name) => join(hierarchies, name, 'default/web'));
  for (const path of [folder, ...cgroups]) mkdirSync(path, { recursive: true });
  const write = (state: object, config: object = {}): void => {
    const usual = {
      ...{ id: 'web', init_process_pid: gone, rootless: false, intel_rdt_path: '' },
      cgroup_paths: Object.fromEntries(cgroups.map((path, at) => [`hierarchy${at}`, path])),
      config: {
        namespaces: [
          { type: 'NEWPID', path: '' },
          { type: 'NEWNET', path: '/run/netns/web' },
        ],
        Hooks: { createRuntime: [{ path: '/bin/sh' }], poststop: null },
        cgroups: { path: '/default/web', Systemd: false, Rootless: false },
        ...config,
      },
    };
    writeFileSync(join(folder, 'state.json'), JSON.stringify({ ...usual, ...state }));
  };
  write({});
  return { folder, hierarchies, cgroups, write, run: (pid = gone) => deleteOfRunc(folder, pid, hierarchies) };
}

test('a usual container leaves neither cgroup nor state behind', (t) => {
  const { folder, cgroups, run } = setUp(t);
  writeFileSync(join(folder, 'exec.fifo'), ''); // it was killed before it was started
  rmSync(cgroups[1] ?? '', { recursive: true }); // a hierarchy that is not mounted any more
  assert.equal(run(), true);
  assert.equal(existsSync(folder), false);
  assert.deepEqual(cgroups.map(existsSync), [false, false]);
});

suite('nothing is touched of a container', () => {
  const refused: [why: string, state: object, config?: object][] = [
    ['whose state names another process', { init_process_pid: gone + 1 }],
    ['whose process runs, or another one of its number', { init_process_pid: process.pid }],
    ['of somebody who is not root', { rootless: true }],
    ['whose cgroup is not its maker’s', {}, { rootless_cgroups: true }],
    ['whose cgroup systemd made', {}, { cgroups: { Systemd: true } }],
    ['whose cgroup systemd made, as 1.3 writes it', {}, { cgroups: { systemd: true } }],
    ['of which nothing is said of the cgroup', {}, { cgroups: undefined }],
    ['without a cgroup', { cgroup_paths: {} }],
    ['whose cgroup is elsewhere', { cgroup_paths: { '': '/etc/web' } }],
    ['whose cgroup leads elsewhere', { cgroup_paths: { '': '/sys/fs/cgroup/../../etc' } }],
    ['whose cgroup is no text', { cgroup_paths: { '': 7 } }],
    ['with a resctrl group', { intel_rdt_path: '/sys/fs/resctrl/web' }],
    ['that asked for a resctrl group', {}, { intel_rdt: { closID: 'web' } }],
    ['with poststop hooks', {}, { Hooks: { poststop: [{ path: '/bin/true' }] } }],
    ['in the host’s pid namespace', {}, { namespaces: [] }],
    ['in another’s pid namespace', {}, { namespaces: [{ type: 'NEWPID', path: '/proc/1/ns/pid' }] }],
  ];
  for (const [why, state, config] of refused) {
    test(why, (t) => {
      const { folder, cgroups, write, run } = setUp(t);
      write(state, config);
      assert.equal(run('init_process_pid' in state ? process.pid : gone), false);
      assert.deepEqual(readdirSync(folder), ['state.json']);
      assert.deepEqual(cgroups.map(existsSync), [true, true]);
    });
  }

  test('that has something else beside its state', (t) => {
    const { folder, cgroups, run } = setUp(t);
    mkdirSync(join(folder, 'notify'));
    assert.equal(run(), false);
    assert.deepEqual(readdirSync(folder).sort(), ['notify', 'state.json']);
    assert.deepEqual(cgroups.map(existsSync), [true, true]);
  });

  test('whose state is missing, or is none', (t) => {
    const { folder, cgroups, run } = setUp(t);
    writeFileSync(join(folder, 'state.json'), '{"init_process_pid":');
    assert.equal(run(), false);
    rmSync(join(folder, 'state.json'));
    assert.equal(run(), false);
    rmSync(folder, { recursive: true });
    assert.equal(run(), false);
    assert.deepEqual(cgroups.map(existsSync), [true, true]);
  });
});

test('where the cgroup would not go, runc still knows the container', (t) => {
  const { folder, cgroups, run } = setUp(t);
  mkdirSync(join(cgroups[0] ?? '', 'below')); // as the kernel refuses it while somebody is in it
  assert.equal(run(), false);
  assert.deepEqual(readdirSync(folder), ['state.json']);
});

test('only releases of runc’s whose delete is known', () => {
  const binary = (version: string, more = {}) => ({
    ...{ name: 'runc' as const, path: '/usr/bin/runc', version, criu: true },
    ...more,
  });
  for (const version of ['1.1.0', '1.1.15', '1.2.9', '1.3.4', '1.4.0', '1.5.1'])
    assert.equal(knowsDeleteOfRunc(binary(version)), true, version);
  for (const version of ['', '1', '1.0.3', '1.6.0', '2.1.1', '1.2.0-rc.1', '1.1', '11.1.1'])
    assert.equal(knowsDeleteOfRunc(binary(version)), false, version);
  assert.equal(knowsDeleteOfRunc(binary('1.1.15', { wrapped: true })), false);
  assert.equal(knowsDeleteOfRunc(binary('1.1.15', { name: 'crun' })), false);
});

test('each runtime is removed from in its own way', (t) => {
  const { folder, write } = setUp(t);
  const common = { path: '/usr/bin/x', criu: true };
  write({}, { cgroups: undefined });
  assert.equal(directDeleteOf({ ...common, name: 'runc', version: '1.1.15' })?.(folder, gone), false);
  assert.equal(directDeleteOf({ ...common, name: 'crun', version: '1.21' })?.(folder, gone), false);
  assert.equal(directDeleteOf({ ...common, name: 'runc', version: '1.6.0' }), undefined);
  assert.equal(directDeleteOf({ ...common, name: 'crun', version: '1.30' }), undefined);
});
