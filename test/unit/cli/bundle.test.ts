import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { RestoreResult, type RunRequest } from '../../../src/proto/gen/stasis/stasis.ts';
import { against, type Handlers, stasis, stasisProcess } from './harness.ts';

async function folder(): Promise<{ path: string } & AsyncDisposable> {
  const path = await mkdtemp(join(tmpdir(), 'stasis-bundle-'));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true }) };
}

interface Spec {
  ociVersion: string;
  process: { terminal: boolean; args: string[]; cwd: string; capabilities: Record<string, string[]> };
  root: { path: string };
  mounts: { destination: string; type: string; source: string; options: string[] }[];
  linux: { namespaces: { type: string }[] };
}

test('spec writes a config.json with what the runtime specification requires', async () => {
  await using place = await folder();
  const bundle = join(place.path, 'new/web');
  const outcome = await stasis(['spec', '--bundle', 'new/web', '--', 'sh', '-c', 'echo $HOME'], {
    cwd: place.path,
  });
  assert.equal(outcome.code, 0, outcome.stderr);
  const spec = JSON.parse(await readFile(join(bundle, 'config.json'), 'utf8')) as Spec;
  assert.match(spec.ociVersion, /^1\.\d+\.\d+$/);
  assert.deepEqual(spec.process.args, ['sh', '-c', 'echo $HOME']);
  assert.equal(spec.process.terminal, false);
  assert.equal(spec.process.cwd, '/');
  assert.equal(spec.root.path, 'rootfs');
  for (const mount of spec.mounts) assert.ok(mount.destination.startsWith('/'), mount.destination);
  assert.deepEqual(spec.linux.namespaces.map(({ type }) => type).toSorted(), [
    'ipc',
    'mount',
    'network',
    'pid',
    'uts',
  ]);
  const { bounding = [], effective = [], permitted = [] } = spec.process.capabilities;
  for (const set of [effective, permitted]) for (const one of set) assert.ok(bounding.includes(one), one);
});

test('spec never overwrites', async () => {
  await using place = await folder();
  const file = join(place.path, 'config.json');
  await writeFile(file, 'mine');
  const outcome = await stasis(['spec', '--bundle', place.path]);
  assert.equal(outcome.code, 4);
  assert.ok(outcome.stderr.startsWith(`stasis: ${file} exists already\n`), outcome.stderr);
  assert.equal(await readFile(file, 'utf8'), 'mine');
  const below = await stasis(['spec', '--bundle', join(file, 'x')]);
  assert.equal(below.code, 5);
  assert.match(below.stderr, /^stasis: cannot write .*config\.json \(ENOTDIR/);
});

test('spec ends with an error where no folder can be made, as below /proc', async () => {
  // A process of its own: what once looped there was a thread that nothing ends but SIGKILL.
  const outcome = await stasisProcess(['spec', '--bundle', '/proc/stasis-nope/web']);
  assert.equal(outcome.signal, null);
  assert.equal(outcome.code, 5);
  assert.match(outcome.stderr, /^stasis: cannot write \/proc\/stasis-nope\/web\/config\.json \(ENOENT/);
});

test('run sends the absolute path of a bundle, and names the folder that is none', async () => {
  await using place = await folder();
  const seen: RunRequest[] = [];
  const handlers: Partial<Handlers> = {
    async *run(request) {
      seen.push(request);
      const value = RestoreResult.fromPartial({ container: request.id, pid: 3, totalNs: 120_000_000n });
      yield { update: { $case: 'result', value }, warnings: [] };
    },
  };
  const none = await against(handlers, ['run', '--bundle', '.', 'web'], { cwd: place.path });
  assert.equal(none.code, 3);
  assert.match(
    none.stderr,
    /is no OCI bundle: it has no config\.json\n {2}next: write one with `stasis spec --bundle /,
  );
  await stasis(['spec'], { cwd: place.path });
  const outcome = await against(handlers, ['run', '--bundle', '.', 'web'], { cwd: place.path });
  assert.equal(outcome.stdout, 'web: started in 120 ms, pid 3\n');
  assert.deepEqual(seen, [{ namespace: 'default', id: 'web', bundle: place.path }]);
});
