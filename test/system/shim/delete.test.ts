// An ended task is deleted without the program that made it.
import assert from 'node:assert/strict';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { before, test, type TestContext } from 'node:test';
import { findCgroup, foldersOf, type Cgroup } from '../../../src/sys/cgroup.ts';
import { pidOf, removeContainer, statusOf, uniqueName } from '../support/container.ts';
import { attempt, ctr, image, importImage, runtime, stack, until } from '../support/stack.ts';
import { Recording } from './events.ts';
import { runDir } from './shims.ts';

const runtimes = [
  ['crun', process.env['STASIS_CRUN'] ?? ''],
  ['runc', process.env['STASIS_RUNC'] ?? ''],
] as const;

before(importImage);

/** Ends a container and deletes its task: how that went, what was told of it, and what of it is still there. */
async function endAndDelete(t: TestContext, flags: string[], meanwhile: (cgroup: Cgroup) => void) {
  const name = uniqueName('deleted');
  t.after(() => removeContainer(name));
  const recording = await Recording.start(name);
  await ctr('run', '-d', '--null-io', '--runtime', runtime, ...flags, image, name, '/bin/sleep', '600');
  const pid = (await pidOf(name)) ?? 0;
  const cgroup = await findCgroup(pid);
  process.kill(pid, 'SIGKILL');
  await until('the end', async () => (await statusOf(name)) === 'STOPPED' || undefined);
  meanwhile(cgroup);
  const deleted = await attempt('ctr', ['tasks', 'rm', name]);
  assert.equal(deleted.exitCode, 0, deleted.stderr);
  const events = await recording.through('/tasks/delete');
  const state = `${runDir}/oci/default/${name}`;
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8');
  const left = [state, ...foldersOf(cgroup)].filter((path) => existsSync(path));
  if (mounts.includes(`/${name}/rootfs `)) left.push('the root file system');
  return { code: deleted.exitCode, events, left, files: readdirSync(`${runDir}/tasks/default/${name}`) };
}

for (const [name, program] of runtimes) {
  test(`a task of ${name}'s is deleted without it, and is as gone and as announced as with it`, async (t) => {
    const folder = mkdtempSync(join(stack.state, 'data/tmp/delete-'));
    t.after(() => rmSync(folder, { recursive: true }));
    // From now on it cannot be started: it is away.
    const away = join(folder, 'away');
    mkdirSync(away);
    copyFileSync(program, join(away, name));
    writeFileSync(join(folder, 'away.toml'), `BinaryName = "${join(away, name)}"\n`);
    const without = await endAndDelete(t, ['--runtime-config-path', join(folder, 'away.toml')], () =>
      renameSync(join(away, name), join(away, 'of-yesterday')),
    );
    // A script around it may have something to do.
    const script = join(folder, 'script');
    writeFileSync(script, `#!/bin/sh\necho "$@" >>${folder}/called\nexec ${program} "$@"\n`, { mode: 0o755 });
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

  test(`a cgroup that would not go is left to ${name}, which takes those below it away too`, async (t) => {
    const options = join(stack.state, `data/tmp/${name}-${process.pid}.toml`);
    t.after(() => rmSync(options));
    writeFileSync(options, `BinaryName = "${program}"\n`);
    const { code, left } = await endAndDelete(t, ['--runtime-config-path', options], (cgroup) => {
      for (const path of foldersOf(cgroup)) mkdirSync(join(path, 'below'));
    });
    assert.deepEqual([code, left], [0, []]);
  });
}
