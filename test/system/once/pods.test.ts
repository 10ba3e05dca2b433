import assert from 'node:assert/strict';
import { mkdtempSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import {
  count,
  pidOf,
  progress,
  removeAll,
  startContainer,
  startWriter,
  statusOf,
  uniqueName,
} from '../support/container.ts';
import { attempt, ctr, importImage, refused, stack, stasis } from '../support/stack.ts';

/** A pod as the CRI makes one, by ctr: a sandbox whose namespaces its containers join. */
suite('a pod', () => {
  const sandbox = uniqueName('sandbox');
  const members = [uniqueName('a'), uniqueName('b')] as [string, string];
  const [first, second] = members;
  const shared = mkdtempSync(join(stack.state, 'data/tmp/pod-'));
  const held = join(shared, 'held');
  const [one, broken, last, again] = ['one', 'broken', 'last', 'again'].map((word) => uniqueName(word)) as [
    string,
    string,
    string,
    string,
  ];
  const all = [sandbox, ...members];
  const kinds = ['ipc', 'uts', 'net', 'pid'];
  const annotation = ['--annotation', `io.kubernetes.cri.sandbox-id=${sandbox}`];
  before(async () => {
    await importImage();
    const label = ['--label', 'io.cri-containerd.kind=sandbox'];
    const wait = ['/bin/perl', '-e', '$SIG{CHLD} = "IGNORE"; select(undef, undef, undef, 1000) while 1'];
    await startContainer(sandbox, wait, [...label, ...annotation]);
    const pid = await pidOf(sandbox);
    const flags = kinds.flatMap((kind) => [
      '--with-ns',
      `${kind === 'net' ? 'network' : kind}:/proc/${pid}/ns/${kind}`,
    ]);
    await startWriter(first, { flags: [...annotation, ...flags] });
    writeFileSync(held, 'five.');
    const mount = ['--mount', `type=bind,src=${shared},dst=/shared,options=rbind:ro`];
    const holding =
      '$^F = 9; open(F, "<", "/shared/held") or die; exec "/bin/perl", "/writer.pl", "0", "0.002"';
    await startContainer(second, ['/bin/perl', '-e', holding], [...annotation, ...flags, ...mount]);
    await progress(second, 3);
  });
  after(async () => {
    await removeAll(...members, sandbox);
    rmSync(shared, { recursive: true });
  });

  /** The namespaces of each, which are one pod's if they are the same. */
  async function namespaces(): Promise<string[]> {
    const seen = await Promise.all(
      all.map(async (name) => {
        const pid = await pidOf(name);
        return kinds.map((kind) => readlinkSync(`/proc/${pid}/ns/${kind}`)).join(' ');
      }),
    );
    return [...new Set(seen)];
  }

  async function numbers(): Promise<number[]> {
    return Promise.all(members.map(count));
  }

  test('is checkpointed as one by the name of its sandbox, and comes back as one into the namespaces that it has', async () => {
    await stasis('checkpoint', sandbox, '--name', one, '--require-memory');
    const [before, pid] = [await numbers(), await pidOf(sandbox)];
    for (const name of members) await progress(name, 100);
    const result = await attempt('stasis', ['restore', '--set', one, '--require-memory']);
    assert.equal(result.exitCode, 0, result.stderr);
    assert.match(result.stderr, new RegExp(`${sandbox} runs and is left as it is`));
    assert.match(result.stdout, new RegExp(`set ${one}: 2 restored`));
    for (const [index, now] of (await numbers()).entries())
      assert.ok(now < (before[index] ?? 0) + 100, `${members[index]} is back at ${now}`);
    assert.equal(await pidOf(sandbox), pid);
    assert.equal((await namespaces()).length, 1);
    for (const name of members) await progress(name, 3);
  });

  test('whose sandbox is to come back alone is refused while its containers run', async () => {
    assert.match(await refused(5, 'restore', sandbox, '--snapshot', one), new RegExp(`restore --set ${one}`));
    for (const name of members) await progress(name, 3);
  });

  test('of which one container cannot come back stays as it was, all of it', async () => {
    const pids = await Promise.all(all.map(pidOf));
    await stasis('checkpoint', sandbox, '--name', broken, '--require-memory');
    const reached = await numbers();
    writeFileSync(held, 'seven..'); // CRIU insists that a file that was open has the size that it had
    const said = await attempt('stasis', ['restore', '--set', broken, '--require-memory']);
    assert.notEqual(said.exitCode, 0);
    assert.match(
      said.stderr,
      new RegExp(`${first}[^]*since ${second} of the same pod could not be brought back`),
    );
    for (const [index, name] of members.entries()) {
      assert.equal(await statusOf(name), 'RUNNING');
      assert.ok((await progress(name, 3)) > (reached[index] ?? 0), `${name} goes on from where it was`);
    }
    assert.equal(await pidOf(sandbox), pids[0]);
    assert.equal((await namespaces()).length, 1);
    for (const name of all) await stasis('rm', name, broken);
  });

  test('that was ended as a whole comes back as a whole: its sandbox first, the others into its new namespaces', async () => {
    await stasis('checkpoint', sandbox, '--name', last, '--require-memory', '--exit');
    for (const name of all) assert.equal(await statusOf(name), 'STOPPED');
    const pid = await pidOf(sandbox);
    await stasis('restore', '--set', last, '--require-memory');
    assert.notEqual(await pidOf(sandbox), pid);
    assert.equal((await namespaces()).length, 1);
    for (const name of members) await progress(name, 3);
    // And again: their records name the new process.
    await stasis('checkpoint', '--pod', sandbox, '--name', again, '--require-memory');
    await stasis('restore', '--set', again, '--require-memory');
    assert.equal((await namespaces()).length, 1);
    for (const name of members) await progress(name, 3);
  });

  test('whose containers were removed comes back as a whole', async () => {
    for (const name of [...members, sandbox]) {
      await ctr('tasks', 'rm', '-f', name);
      await ctr('containers', 'rm', name);
    }
    await stasis('restore', '--set', again, '--require-memory');
    assert.equal((await namespaces()).length, 1);
    for (const name of members) await progress(name, 3);
  });
});
