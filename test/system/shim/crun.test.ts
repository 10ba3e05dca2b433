// The same with crun, which the client's options name.
import assert from 'node:assert/strict';
import {
  copyFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { progress, removeContainer, startWriter, uniqueName } from '../support/container.ts';
import { attempt, ctr, image, importImage, runtime, stack, stasis, until } from '../support/stack.ts';
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
