// What nerdctl does, by a stand-in that makes the same calls in the same order; under our own name, to which it sends no
// options, and under that of containerd's runtime.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test, type TestContext } from 'node:test';
import { Containerd, type NamespaceClient } from '../../../src/containerd/client.ts';
import { Code, codeOf } from '../../../src/errors.ts';
import { Status } from '../../../src/proto/gen/containerd/task_types.ts';
import { count, inside, pidOf, progress, removeAll, statusOf, uniqueName } from '../support/container.ts';
import { ctr, image, importImage, runtime, stack, until } from '../support/stack.ts';
import { dropInRuntime, installDropIn, removeDropIn } from './drop-in.ts';
import { Nerdctl } from './nerdctl.ts';

let folder: string;
let containerd: Containerd;
let api: NamespaceClient;
/** Chain id of the image. */
let parent: string;

before(async () => {
  await importImage();
  await installDropIn();
  folder = mkdtempSync(join(stack.state, 'data/tmp/nerdctl-'));
  containerd = new Containerd(stack.address);
  api = containerd.namespace('default');
  const probe = uniqueName('nerdctl');
  await ctr('containers', 'create', '--runtime', runtime, image, probe);
  parent = (await api.snapshots.stat({ snapshotter: 'stasis', key: probe })).info?.parent ?? '';
  await ctr('containers', 'rm', probe);
});
after(async () => {
  containerd.close();
  rmSync(folder, { recursive: true });
  await removeDropIn();
});

/** Writes, as writer.pl does, and says something all the time. */
const WRITER = [
  '/bin/sh',
  '-c',
  'perl /writer.pl 0 0.002 & exec perl -e \'$| = 1; while (1) { print "tick\\n"; print STDERR "tock\\n"; select(undef, undef, undef, 0.1) }\'',
];

function stage(t: TestContext, type: string): { nerdctl: Nerdctl; name: string } {
  const nerdctl = new Nerdctl(containerd, type, folder, parent);
  const name = uniqueName('nerdctl');
  t.after(async () => {
    await nerdctl.remove(name);
    await removeAll(name);
  });
  return { nerdctl, name };
}

const lines = (nerdctl: Nerdctl, name: string, line: string): number =>
  nerdctl.log(name).filter((written) => written === line).length;

/** Both streams reach the logger, from now on. */
async function logs(nerdctl: Nerdctl, name: string): Promise<void> {
  for (const line of ['tick', 'tock']) {
    const before = lines(nerdctl, name, line);
    await until(`more of ${line}`, () => (lines(nerdctl, name, line) > before + 2 ? true : undefined));
  }
}

const kinds = (nerdctl: Nerdctl, name: string): string[] => nerdctl.hooks(name).map(({ kind }) => kind);

for (const type of [runtime, dropInRuntime]) {
  test(`${type}: run, stop, start and rm run the hooks and the logger each time`, async (t) => {
    const { nerdctl, name } = stage(t, type);
    await nerdctl.run({ name, args: WRITER });
    await logs(nerdctl, name);
    assert.deepEqual(nerdctl.hooks(name), [
      {
        kind: 'createRuntime',
        pid: await pidOf(name),
        network: readlinkSync(`/proc/${await pidOf(name)}/ns/net`),
      },
    ]);
    await nerdctl.stop(name);
    assert.equal(await statusOf(name), 'STOPPED');
    assert.deepEqual(kinds(nerdctl, name), ['createRuntime'], 'stop deletes nothing');
    await nerdctl.start(name);
    await logs(nerdctl, name);
    assert.deepEqual(kinds(nerdctl, name), ['createRuntime', 'poststop', 'createRuntime']);
    await nerdctl.remove(name);
    assert.deepEqual(kinds(nerdctl, name), ['createRuntime', 'poststop', 'createRuntime', 'poststop']);
    assert.equal(lines(nerdctl, name, `logger of default/${name}`), 2);
  });

  test(`${type}: files are copied into and out of a running container, and it is committed`, async (t) => {
    const { nerdctl, name } = stage(t, type);
    await nerdctl.run({ name, args: WRITER });
    await progress(name, 3);
    const file = join(folder, 'file');
    writeFileSync(file, 'from outside');
    await nerdctl.copy(name, 'copied', 'in', file);
    assert.equal(readFileSync(await inside(name, '/copied'), 'utf8'), 'from outside');
    writeFileSync(await inside(name, '/made'), 'from inside');
    await nerdctl.copy(name, 'made', 'out', file);
    assert.equal(readFileSync(file, 'utf8'), 'from inside');
    const names = await nerdctl.commit(name);
    for (const made of ['copied', 'made', 'appended'])
      assert.ok(names.includes(made), `${made} in ${names.join()}`);
    await progress(name, 5);
  });

  test(`${type}: a checkpoint brings memory and disk back, with hooks and logger, again and again`, async (t) => {
    const { nerdctl, name } = stage(t, type);
    await nerdctl.run({ name, args: WRITER });
    await progress(name, 5);
    const checkpoint = `checkpoint-${name}`;
    await nerdctl.checkpoint(name, checkpoint);
    assert.equal(await statusOf(name), 'RUNNING');
    for (let round = 1; round <= 2; round++) {
      const far = await progress(name, 200); // more than it counts on before it is looked at
      await nerdctl.stop(name);
      await nerdctl.start(name, checkpoint);
      assert.ok((await count(name)) < far, 'the disk went back');
      await progress(name, 5); // fails where memory and disk are apart
      await logs(nerdctl, name);
      const seen = nerdctl.hooks(name);
      assert.deepEqual(
        seen.map(({ kind }) => kind),
        Array.from({ length: 2 * round + 1 }, (_, i) => (i % 2 === 0 ? 'createRuntime' : 'poststop')),
      );
      const pid = await pidOf(name);
      const network = readlinkSync(`/proc/${pid}/ns/net`);
      assert.deepEqual(seen.at(-1), { kind: 'createRuntime', pid, network }, 'for the new network');
      assert.equal(lines(nerdctl, name, `logger of default/${name}`), round + 1);
    }
  });

  test(`${type}: the container is not known, and nobody waits, while Create is under way`, async (t) => {
    const { nerdctl, name } = stage(t, type);
    await nerdctl.create({ name, args: WRITER, networkSeconds: 1 });
    let done = false;
    const started = nerdctl.start(name).finally(() => (done = true));
    const asked: string[] = [];
    while (!done) {
      const answer = await api.tasks
        .get({ containerId: name, execId: '' }, { timeoutMs: 2000 })
        .then(({ process }) => `status ${process?.status}`)
        .catch((error: unknown) => `error ${codeOf(error)}`);
      asked.push(answer);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    await started;
    const unknown = `error ${Code.NotFound}`;
    assert.ok(asked.filter((answer) => answer === unknown).length >= 3, asked.join());
    const allowed = [unknown, `status ${Status.CREATED}`, `status ${Status.RUNNING}`];
    assert.deepEqual(
      asked.filter((answer) => !allowed.includes(answer)),
      [],
    );
  });
}

test('a checkpoint without --leave-running ends the task under the name that nerdctl says so to, and it restores', async (t) => {
  const { nerdctl, name } = stage(t, dropInRuntime);
  await nerdctl.run({ name, args: WRITER });
  await progress(name, 5);
  await nerdctl.checkpoint(name, `checkpoint-${name}`, false);
  await until('its end', async () => ((await statusOf(name)) === 'STOPPED' ? true : undefined));
  await nerdctl.start(name, `checkpoint-${name}`);
  await progress(name, 5);
});

test('a systemd cgroup path is told to the OCI runtime as such, though no option says so', async (t) => {
  const { nerdctl, name } = stage(t, runtime);
  const [program, calls] = [join(folder, 'runtime'), join(folder, 'calls')];
  writeFileSync(program, withoutSystemd(calls), { mode: 0o755 });
  const config = readFileSync(stack.config, 'utf8');
  t.after(() => writeFileSync(stack.config, config));
  // A shim of its own reads the configuration.
  const changed = config.replace(/^oci = .*$/m, `oci = "${program}"`);
  writeFileSync(stack.config, `${changed}\n[shim]\nsharing = "container"\n`);
  await nerdctl.run({ name, args: WRITER, cgroupsPath: `stasis-test.slice:nerdctl:${name}` });
  await nerdctl.remove(name);
  for (const verb of ['create', 'start', 'delete']) {
    const call = readFileSync(calls, 'utf8')
      .split('\n')
      .find((line) => line.includes(` ${verb} `));
    assert.match(call ?? '', / --systemd-cgroup /, verb);
  }
});

/** The configured runtime, on a machine without systemd: it is not passed on what it would refuse there. */
function withoutSystemd(calls: string): string {
  return `#!/bin/sh
echo " $* " >>${calls}
for word; do
  shift
  [ "$word" = --systemd-cgroup ] || set -- "$@" "$word"
done
exec "${process.env['STASIS_RUNC']}" "$@"
`;
}
