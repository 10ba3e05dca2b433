import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { checkpointsOf, count, progress, removeAll, startWriter, uniqueName } from '../support/container.ts';
import { attempt, ctr, datasets, importImage, must, refused, stack, stasis } from '../support/stack.ts';

interface Adopted {
  adopted: { dataset: string; namespace: string; container: string; foreign: boolean }[];
  dropped: { dataset: string }[];
}

const folder = mkdtempSync(join(stack.state, 'data/tmp/adopt-'));
const stream = join(folder, 'stream');

/** `zfs send -R` of a container's dataset, or `zfs receive`: a stream is no text. */
function zfs(args: string[], files: { in?: string; out?: string }): void {
  const stdin = files.in === undefined ? 'ignore' : openSync(files.in, 'r');
  const stdout = files.out === undefined ? 'ignore' : openSync(files.out, 'w');
  try {
    execFileSync('zfs', args, { stdio: [stdin, stdout, 'inherit'] });
  } finally {
    for (const file of [stdin, stdout]) if (typeof file === 'number') closeSync(file);
  }
}

suite('a container that came by zfs receive while stasisd ran', () => {
  const web = uniqueName('web');
  const place = `${stack.root}/containers/default/${uniqueName('received')}`;
  const adopt = async (...args: string[]): Promise<Adopted> =>
    JSON.parse(await stasis('adopt', ...args, '--json')) as Adopted;
  const here = (): string[] => datasets().filter((name) => name.startsWith(place));
  let atLeast = 0;
  before(async () => {
    await importImage();
    await startWriter(web);
    await progress(web, 3);
    atLeast = await count(web);
    await stasis('checkpoint', web, '--name', 'good', '--require-memory');
    await progress(web, 5);
    const { containers } = JSON.parse(await stasis('ls', web, '--json')) as {
      containers: { disks: { dataset: string; current: boolean }[] }[];
    };
    const source = containers[0]?.disks.find(({ current }) => current)?.dataset ?? '';
    const owner = (await must('zfs', ['get', '-H', '-o', 'value', 'stasis:owner', source])).trim();
    await must('zfs', ['set', 'stasis:owner=11111111-2222-3333-4444-555555555555', source]);
    await must('zfs', ['snapshot', '-r', `${source}@sent`]);
    zfs(['send', '-R', `${source}@sent`], { out: stream });
    await must('zfs', ['destroy', '-r', `${source}@sent`]);
    await must('zfs', ['set', `stasis:owner=${owner}`, source]);
    await removeAll(web);
    zfs(['receive', '-u', place], { in: stream });
  });
  after(async () => {
    await removeAll(web);
    await attempt('stasis', ['adopt', '--drop', place]);
    rmSync(folder, { recursive: true, force: true });
  });

  test('is shown by a preview, which changes nothing', async () => {
    const before = here();
    assert.equal(before.length, 6, 'a disk, a memory and two snapshots of each');
    const { adopted } = await adopt('--dry-run');
    const found = adopted.find(({ dataset }) => dataset === place);
    assert.partialDeepStrictEqual(found, { namespace: 'default', container: web, foreign: true });
    assert.deepEqual(here(), before);
    assert.match(await stasis('df'), new RegExp(`foreign .*${place}\n`));
    assert.deepEqual(await checkpointsOf(web), ['good']);
  });

  test('has what its checkpoint takes summed up, disk and memory, the unique and the shared', async () => {
    interface Usage {
      name: string;
      checkpoint: string | null;
      container: string | null;
      uniqueBytes: number;
      sharedBytes: number;
      referencedBytes: number;
    }
    const usage = JSON.parse(await stasis('df', '--json')) as { entries: Usage[]; checkpoints: Usage[] };
    const halves = usage.entries.filter((entry) => entry.container === web && entry.checkpoint === 'good');
    assert.equal(halves.length, 2);
    const [sum] = usage.checkpoints.filter(({ container, name }) => container === web && name === 'good');
    for (const field of ['uniqueBytes', 'sharedBytes', 'referencedBytes'] as const)
      assert.equal(
        sum?.[field],
        halves.reduce((total, half) => total + half[field], 0),
        field,
      );
    assert.ok((sum?.referencedBytes ?? 0) > 100_000, 'memory and disk of a program');
    for (const half of halves) assert.equal(half.uniqueBytes + half.sharedBytes, half.referencedBytes);
  });

  test("is not containerd's, before it is adopted or after, and its collector leaves it alone", async () => {
    for (const step of ['received', 'adopted']) {
      if (step === 'adopted') assert.equal((await adopt(place)).adopted[0]?.dataset, place);
      await ctr('leases', 'create', '--id', web);
      await ctr('leases', 'rm', '--sync', web);
      assert.doesNotMatch(await ctr('snapshots', '--snapshotter', 'stasis', 'ls'), new RegExp(web));
      assert.equal(here().length, 6, step);
    }
    assert.match(await stasis('df'), new RegExp(`adopted .*${place}\n`));
  });

  test('is restored from its checkpoint, memory and disk, though containerd never had it', async () => {
    await stasis('restore', web, '--require-memory');
    assert.ok((await count(web)) >= atLeast);
    await progress(web, 3);
  });

  test('is dropped by name alone, and not under what stands on it', async () => {
    assert.match(await refused(2, 'adopt', '--drop'), /no dataset named/);
    const used = await refused(5, 'adopt', '--drop', place);
    assert.match(used, new RegExp(`has the checkpoints good[^]*stasis -n default rm ${web} good`));
    await stasis('rm', web, 'good');
    assert.match(await refused(5, 'adopt', '--drop', place), /stand on dataset/);
    await progress(web, 3);
    const again = `${place}-again`;
    zfs(['receive', '-u', again], { in: stream });
    assert.match(await refused(5, 'adopt', '--drop', again), /has the checkpoints good/, 'it came with them');
    await stasis('rm', web, 'good');
    assert.equal((await adopt('--drop', again, '--dry-run')).dropped[0]?.dataset, again);
    assert.ok(datasets().includes(again), 'a preview changes nothing');
    assert.match(await stasis('adopt', '--drop', again), /1 dropped/);
    assert.ok(!datasets().some((each) => each.startsWith(again)));
  });
});

suite('a received copy of a container that is here', () => {
  const web = uniqueName('web');
  const copy = `${stack.root}/containers/default/${uniqueName('copy')}`;
  const file = join(mkdtempSync('/tmp/copy-'), 'stream');
  before(async () => {
    await importImage();
    await startWriter(web);
    await progress(web, 3);
  });
  after(async () => {
    await removeAll(web, `${web}-1`);
    await attempt('stasis', ['adopt', '--drop', copy]);
    rmSync(dirname(file), { recursive: true, force: true });
  });

  test('brings its checkpoint back when that of the original is removed, and lets it be removed for itself', async () => {
    await stasis('checkpoint', web, '--name', 'k', '--require-memory');
    const atLeast = await count(web);
    const { dataset } = (
      JSON.parse(await stasis('ls', web, '--json')) as {
        containers: { disks: { dataset: string; current: boolean }[] }[];
      }
    ).containers[0]?.disks.find(({ current }) => current) ?? { dataset: '' };
    await must('zfs', ['snapshot', '-r', `${dataset}@sent`]);
    zfs(['send', '-R', `${dataset}@sent`], { out: file });
    await must('zfs', ['destroy', '-r', `${dataset}@sent`]);
    await stasis('clone', web, '--from', 'k', '--count', '1');
    zfs(['receive', '-u', copy], { in: file });
    assert.match(await stasis('adopt', copy), /1 adopted/);
    assert.deepEqual(await checkpointsOf(web), ['k'], 'once');
    assert.match(await stasis('rm', web, 'k'), /its data stays for/);
    assert.deepEqual(await checkpointsOf(web), ['k'], "the copy's");
    await stasis('restore', web, '--snapshot', 'k', '--require-memory');
    assert.ok((await count(web)) <= atLeast + 3, 'it went back');
    await progress(web, 1);
    assert.match(await refused(5, 'adopt', '--drop', copy), new RegExp(`stasis -n default rm ${web} k`));
    await stasis('rm', web, 'k');
    assert.deepEqual(await checkpointsOf(web), []);
    assert.match(await refused(5, 'adopt', '--drop', copy), /stand on dataset/);
  });
});
