// The same with crun, which the client's options name.
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { removeContainer, uniqueName } from '../support/container.ts';
import { ctr, image, importImage, runtime, stack } from '../support/stack.ts';
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

test('crun is started from a sealed copy, of which the shim keeps one', async (t) => {
  const name = uniqueName('crun');
  t.after(() => removeContainer(name));
  await ctr('run', '-d', '--null-io', ...way, image, name, '/bin/sleep', '600');
  for (let i = 0; i < 3; i++) await ctr('tasks', 'exec', '--exec-id', `e${i}`, name, '/bin/true');
  const fds = `/proc/${await shimPid(name)}/fd`;
  const copies = readdirSync(fds).filter((fd) => {
    try {
      return readlinkSync(`${fds}/${fd}`).startsWith('/memfd:program');
    } catch {
      return false; // closed meanwhile
    }
  });
  assert.equal(copies.length, 1);
});
