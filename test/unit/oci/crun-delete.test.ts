import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite, test, type TestContext } from 'node:test';
import { deleteOfCrun, knowsDeleteOfCrun } from '../../../src/oci/crun-delete.ts';

/** Of a process that has ended and was waited for. */
const { pid: gone } = spawnSync('true');

/** What crun keeps of a usual container whose first process has ended, and folders that stand for its cgroup. */
function setUp(t: TestContext) {
  const base = mkdtempSync(join(tmpdir(), 'stasis-delete-'));
  t.after(() => rmSync(base, { recursive: true, force: true }));
  const folder = join(base, 'web');
  const cgroups = ['memory', 'pids'].map((name) => join(base, name));
  for (const path of [folder, ...cgroups]) mkdirSync(path);
  const asked: string[] = [];
  const write = (status: object, config: object = { linux: {} }): void => {
    const usual = {
      pid: gone,
      'process-start-time': 4865670,
      'cgroup-path': '/default/web',
      scope: '',
      rootfs: 'rootfs',
      'systemd-cgroup': false,
      bundle: '/b/web',
      created: '2026-01-01T00:00:00.000000Z',
      detached: true,
      external_descriptors: '[]',
    };
    writeFileSync(join(folder, 'status'), JSON.stringify({ ...usual, ...status }));
    writeFileSync(join(folder, 'config.json'), JSON.stringify(config));
  };
  write({});
  const run = (pid = gone): boolean =>
    deleteOfCrun(folder, pid, (path) => {
      asked.push(path);
      return cgroups;
    });
  return { folder, cgroups, asked, write, run };
}

test('a usual container leaves neither cgroup nor state behind', (t) => {
  const { folder, cgroups, asked, run } = setUp(t);
  writeFileSync(join(folder, 'exec.fifo'), ''); // it was killed before it was started
  rmSync(cgroups[1] ?? '', { recursive: true }); // a hierarchy that came later
  assert.equal(run(), true);
  assert.deepEqual(asked, ['/default/web']);
  assert.equal(existsSync(folder), false);
  assert.deepEqual(cgroups.map(existsSync), [false, false]);
});

suite('nothing is touched of a container', () => {
  const refused: [why: string, status: object, config?: object][] = [
    ['whose state names another process', { pid: gone + 1 }],
    ['whose process runs, or another one of its number', { pid: process.pid }],
    ['whose cgroup systemd made', { 'systemd-cgroup': true }],
    ['in a scope of systemd’s', { scope: 'web.scope' }],
    ['of a crun that does not say who made the cgroup', { 'systemd-cgroup': undefined }],
    ['without a cgroup', { 'cgroup-path': '' }],
    ['in the root cgroup', { 'cgroup-path': '/' }],
    ['whose cgroup leads elsewhere', { 'cgroup-path': '/default/../web' }],
    ['whose cgroup depends on where one is', { 'cgroup-path': 'default/web' }],
    ['whose cgroup is no text', { 'cgroup-path': 7 }],
    ['with a resctrl group, as 1.14 writes it down', { intelrdt: 'web' }],
    ['with a resctrl group', {}, { linux: { intelRdt: { closID: 'web' } } }],
    ['with poststop hooks', {}, { hooks: { poststop: [{ path: '/bin/true' }] } }],
  ];
  for (const [why, status, config] of refused) {
    test(why, (t) => {
      const { folder, cgroups, asked, write, run } = setUp(t);
      write(status, config);
      assert.equal(run('pid' in status && status.pid === process.pid ? process.pid : gone), false);
      assert.deepEqual(asked, []);
      assert.deepEqual(readdirSync(folder).sort(), ['config.json', 'status']);
      assert.deepEqual(cgroups.map(existsSync), [true, true]);
    });
  }

  for (const name of ['notify', 'devs', 'status.tmp']) {
    test(`that has a ${name} beside its state`, (t) => {
      const { folder, asked, run } = setUp(t);
      if (name === 'status.tmp') writeFileSync(join(folder, name), '');
      else mkdirSync(join(folder, name));
      assert.equal(run(), false);
      assert.deepEqual(asked, []);
      assert.ok(existsSync(join(folder, 'status')));
    });
  }

  for (const name of ['status', 'config.json']) {
    test(`whose ${name} is missing, or is none`, (t) => {
      const { folder, asked, run } = setUp(t);
      writeFileSync(join(folder, name), '{"pid":');
      assert.equal(run(), false);
      rmSync(join(folder, name));
      assert.equal(run(), false);
      rmSync(folder, { recursive: true });
      assert.equal(run(), false);
      assert.deepEqual(asked, []);
    });
  }
});

test('where the cgroup would not go, crun still knows the container', (t) => {
  const { folder, cgroups, run } = setUp(t);
  mkdirSync(join(cgroups[0] ?? '', 'below')); // as the kernel refuses it while somebody is in it
  assert.equal(run(), false);
  assert.deepEqual(readdirSync(folder).sort(), ['config.json', 'status']);
});

test('what was broken off is finished by crun, which asks for `status` first', (t) => {
  const { folder, run } = setUp(t);
  rmSync(join(folder, 'status'));
  assert.equal(run(), false);
  assert.deepEqual(readdirSync(folder), ['config.json']);
});

test('only releases of crun’s whose delete is known', () => {
  const binary = (version: string, more = {}) => ({
    ...{ name: 'crun' as const, path: '/usr/bin/crun', version, criu: true },
    ...more,
  });
  for (const version of ['1.8', '1.8.1', '1.14.1', '1.21', '1.28', '1.29.1'])
    assert.equal(knowsDeleteOfCrun(binary(version)), true, version);
  for (const version of ['', '1', '1.7.2', '1.30', '2.8', '0.21', '1.28.0.0.1-abc', '1.28-dirty', '11.21'])
    assert.equal(knowsDeleteOfCrun(binary(version)), false, version);
  assert.equal(knowsDeleteOfCrun(binary('1.21', { wrapped: true })), false);
  assert.equal(knowsDeleteOfCrun(binary('1.21', { name: 'runc' })), false);
});
