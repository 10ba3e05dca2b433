// The same with crun, which the client's options name.
import assert from 'node:assert/strict';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, before, test, type TestContext } from 'node:test';
import { findCgroup, foldersOf, type Cgroup } from '../../../src/sys/cgroup.ts';
import { pidOf, progress, removeContainer, startWriter, statusOf, uniqueName } from '../support/container.ts';
import { attempt, ctr, image, importImage, runtime, stack, stasis, until } from '../support/stack.ts';
import { Recording } from './events.ts';
import { runDir, shimPid } from './shims.ts';
import { verbs } from './verbs.ts';

const crun = process.env['STASIS_CRUN'] ?? '';
const folder = mkdtempSync(join(stack.state, 'data/tmp/crun-'));
const options = join(folder, 'options.toml');
const way = ['--runtime', runtime, '--runtime-config-path', options];

before(async () => {
  await importImage();
  writeFileSync(options, `BinaryName = "${crun}"\n`);
});
after(() => rmSync(folder, { recursive: true }));

verbs(way);

test('the runtime that the options name is the one that runs', async (t) => {
  const name = uniqueName('crun');
  t.after(() => removeContainer(name));
  await ctr('run', '-d', '--null-io', ...way, image, name, '/bin/sleep', '600');
  const state = JSON.parse(readFileSync(`${runDir}/tasks/default/${name}/state.json`, 'utf8')) as {
    runtime: { path: string };
  };
  assert.equal(state.runtime.path, crun);
  const status = JSON.parse(readFileSync(`${runDir}/oci/default/${name}/status`, 'utf8')) as { pid: number };
  assert.ok(status.pid > 0, 'crun keeps the container');
});

test('what crun has run, crun restores: the file that the client named is asked again, also when it is gone', async (t) => {
  const name = uniqueName('crun');
  const clone = `${name}-c`;
  t.after(() => removeContainer(name, clone));
  const ofState = (id: string): string =>
    readFileSync(`${runDir}/tasks/default/${id}/state.json`, 'utf8').replace(
      /.*"runtime":\{"path":"([^"]*)".*/s,
      '$1',
    );
  const mine = join(folder, 'mine.toml');
  copyFileSync(options, mine);
  await startWriter(name, { flags: ['--runtime-config-path', mine] });
  await stasis('clone', name, '--name', clone);
  assert.equal(ofState(clone), crun);
  await stasis('checkpoint', name, '--name', 'a');
  await stasis('restore', name);
  assert.equal(ofState(name), crun);
  await progress(name, 3);
  rmSync(mine);
  const refused = await attempt('stasis', ['restore', name]);
  assert.match(refused.stderr, new RegExp(`runtime options of container ${name}: .*mine\\.toml`));
  await progress(name, 3); // it was not stopped for it
});

/** Ends a container and deletes its task: how that went, what was told of it, and what of it is still there. */
async function endAndDelete(t: TestContext, flags: string[], meanwhile: (cgroup: Cgroup) => void) {
  const name = uniqueName('crun');
  t.after(() => removeContainer(name));
  const recording = await Recording.start(name);
  await ctr('run', '-d', '--null-io', '--runtime', runtime, ...flags, image, name, '/bin/sleep', '600');
  const pid = (await pidOf(name)) ?? 0;
  const cgroup = await findCgroup(pid);
  process.kill(pid, 'SIGKILL');
  await until('the end', async () => (await statusOf(name)) === 'STOPPED' || undefined);
  meanwhile(cgroup);
  const deleted = await attempt('ctr', ['tasks', 'rm', name]);
  const events = await recording.through('/tasks/delete');
  const state = `${runDir}/oci/default/${name}`;
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8');
  const left = [state, ...foldersOf(cgroup)].filter((path) => existsSync(path));
  if (mounts.includes(`/${name}/rootfs `)) left.push('the root file system');
  return { code: deleted.exitCode, events, left, files: readdirSync(`${runDir}/tasks/default/${name}`) };
}

test('a task is deleted without crun, and is as gone and as announced as with it', async (t) => {
  // From now on it cannot be started: it is away.
  const away = join(folder, 'away');
  mkdirSync(away);
  copyFileSync(crun, join(away, 'crun'));
  writeFileSync(join(folder, 'away.toml'), `BinaryName = "${join(away, 'crun')}"\n`);
  const without = await endAndDelete(t, ['--runtime-config-path', join(folder, 'away.toml')], () =>
    renameSync(join(away, 'crun'), join(away, 'crun-of-yesterday')),
  );
  // A script around it may have something to do.
  const script = join(folder, 'script');
  writeFileSync(script, `#!/bin/sh\necho "$@" >>${folder}/called\nexec ${crun} "$@"\n`, { mode: 0o755 });
  writeFileSync(join(folder, 'script.toml'), `BinaryName = "${script}"\n`);
  const withIt = await endAndDelete(
    t,
    ['--runtime-config-path', join(folder, 'script.toml')],
    () => undefined,
  );
  assert.match(readFileSync(join(folder, 'called'), 'utf8'), / delete /);
  assert.deepEqual(without, withIt);
  assert.deepEqual([without.code, without.left, without.files], [0, [], ['deleted']]);
});

test('a cgroup that would not go is left to crun, which takes those below it away too', async (t) => {
  const { code, left } = await endAndDelete(t, way.slice(2), (cgroup) => {
    for (const path of foldersOf(cgroup)) mkdirSync(join(path, 'below'));
  });
  assert.deepEqual([code, left], [0, []]);
});

test('crun is started from a sealed copy, of which the shim keeps one', async (t) => {
  const name = uniqueName('crun');
  t.after(() => removeContainer(name));
  await ctr('run', '-d', '--null-io', ...way, image, name, '/bin/sleep', '600');
  const fds = `/proc/${await shimPid(name)}/fd`;
  const copies = (): number =>
    readdirSync(fds).filter((fd) => {
      try {
        return readlinkSync(`${fds}/${fd}`).startsWith('/memfd:program');
      } catch {
        return false; // closed meanwhile
      }
    }).length;
  // Of other files' tests it may have some of other programs.
  const before = await until('the copy', () => copies() || undefined);
  for (let i = 0; i < 3; i++) await ctr('tasks', 'exec', '--exec-id', `e${i}`, name, '/bin/true');
  assert.equal(copies(), before);
});
