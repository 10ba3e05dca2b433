import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import {
  checkpointsOf,
  count,
  progress,
  removeAll,
  removeContainer,
  startWriter,
  statusOf,
  uniqueName,
} from '../support/container.ts';
import { OwnDaemon } from '../support/daemon.ts';
import {
  ctr,
  datasets,
  image,
  importImage,
  must,
  refused,
  runtime,
  stack,
  stasis,
  until,
} from '../support/stack.ts';

/** containerd's garbage collector, run to its end. */
async function collectGarbage(): Promise<void> {
  const lease = uniqueName('gc');
  await ctr('leases', 'create', '--id', lease);
  await ctr('leases', 'rm', '--sync', lease);
}

test('what comes back of a container whose client has left can be dumped again: a clone, its clone, and itself', async (t) => {
  await importImage();
  const web = uniqueName('left');
  const [clone, second] = [`${web}-1`, `${web}-1-1`];
  t.after(() => removeAll(web, clone, second));
  // ctr makes FIFOs for its streams, and takes them away when it leaves.
  const writer = ['/bin/perl', '/writer.pl', '0', '0.002'];
  await ctr('run', '-d', '--runtime', runtime, '--snapshotter', 'stasis', image, web, ...writer);
  await stasis('checkpoint', web, '--name', 'a', '--require-memory');
  await stasis('clone', web, '--from', 'a');
  await stasis('checkpoint', clone, '--name', 'b', '--require-memory');
  await stasis('clone', clone, '--from', 'b');
  await stasis('checkpoint', second, '--name', 'c', '--require-memory');
  await removeContainer(web);
  await stasis('restore', web, '--snapshot', 'a', '--require-memory');
  await stasis('checkpoint', web, '--name', 'd', '--require-memory');
  await stasis('restore', web, '--snapshot', 'd', '--require-memory');
  for (const name of [web, clone, second]) await progress(name, 2);
});

test('a container of a name that had one before can be checkpointed as that one could', async () => {
  await importImage();
  const web = uniqueName('again');
  for (let life = 0; life < 3; life++) {
    await startWriter(web);
    await stasis('checkpoint', web, '--name', 'c', '--require-memory');
    await stasis('rm', web, 'c');
    await removeContainer(web);
    await collectGarbage();
  }
  assert.deepEqual(await checkpointsOf(web), []);
});

test('the removal of a checkpoint says how many bytes it has given back', async (t) => {
  await importImage();
  const web = uniqueName('freed');
  t.after(() => removeAll(web));
  await startWriter(web);
  await stasis('checkpoint', web, '--name', 'c', '--require-memory');
  const unique = await until('what it alone holds to be counted', async () => {
    const { checkpoint } = JSON.parse(await stasis('inspect', web, 'c', '--json')) as {
      checkpoint: { uniqueBytes: number };
    };
    return checkpoint.uniqueBytes > 0 ? checkpoint.uniqueBytes : undefined;
  });
  const { removed } = JSON.parse(await stasis('rm', web, 'c', '--json')) as {
    removed: { freedBytes: number }[];
  };
  // The container has gone on writing meanwhile.
  assert.ok((removed[0]?.freedBytes ?? 0) >= unique, `${removed[0]?.freedBytes} of ${unique}`);
});

suite('checkpoints outlive what they were taken of', () => {
  const web = uniqueName('web');
  const names = [web, `${web}-1`, `${web}-2`, `${web}-copy`];
  before(importImage);
  after(() => removeAll(...names));

  test('back to an older checkpoint, and forward to a newer one', async () => {
    await startWriter(web);
    await stasis('checkpoint', web, '--name', 'old', '--require-memory');
    await progress(web, 500); // more than a busy machine lets it count on before it is looked at
    const later = await count(web);
    await stasis('checkpoint', web, '--name', 'new', '--require-memory');
    await stasis('restore', web, '--snapshot', 'old');
    assert.ok((await progress(web, 1)) < later);
    await stasis('restore', web);
    assert.ok((await progress(web, 1)) >= later, 'without a name the latest is restored');
  });

  test('a forced garbage collection leaves checkpoints, clones and kept disks alone', async () => {
    await stasis('clone', web, '--from', 'old', '--count', '2');
    // What other tests removed goes at any time, and a disk of before a rewind to the trash, in stasisd's own time.
    const own = (): string[] =>
      datasets().filter((dataset) => dataset.includes(web) && !/\.\d+$|\/trash\//.test(dataset));
    const before = own();
    assert.ok(before.length > 3);
    await collectGarbage();
    assert.deepEqual(own(), before);
    for (const name of [web, `${web}-1`, `${web}-2`]) await progress(name, 1);
  });

  test('removing a container whose clones run succeeds, and its clones and checkpoints stay', async () => {
    await removeContainer(web);
    await collectGarbage();
    assert.equal(await statusOf(web), undefined);
    await progress(`${web}-1`, 1);
    await progress(`${web}-2`, 1);
    assert.deepEqual(await checkpointsOf(web), ['old', 'new']);
  });

  test('a removed container comes back from its checkpoint under its own name', async () => {
    await stasis('restore', web, '--snapshot', 'new', '--require-memory');
    await progress(web, 2);
    assert.match(await ctr('containers', 'info', web), /io\.containerd\.stasis\.v2/);
  });

  test('restore --as makes a second one beside it, and refuses a name that is taken', async () => {
    await stasis('restore', web, '--snapshot', 'old', '--as', `${web}-copy`);
    await progress(`${web}-copy`, 2);
    await progress(web, 1);
    const said = await refused(4, 'restore', web, '--as', `${web}-copy`);
    assert.match(said, new RegExp(`${web}-copy`));
  });

  test('a snapshot of the new name that somebody keeps is not taken, nor removed', async () => {
    const kept = `${web}-kept`;
    const snapshots = ['snapshots', '--snapshotter', 'stasis'];
    await ctr(...snapshots, 'prepare', kept);
    const said = await refused(4, 'restore', web, '--snapshot', 'old', '--as', kept);
    assert.match(said, new RegExp(`snapshot ${kept}`));
    assert.match(await ctr(...snapshots, 'ls'), new RegExp(kept));
    assert.doesNotMatch(await ctr('containers', 'ls', '-q'), new RegExp(kept));
    await ctr(...snapshots, 'rm', kept);
  });

  test('a checkpoint comes back even when image and container are gone', async () => {
    await removeContainer(...names);
    await ctr('images', 'rm', '--sync', image);
    await collectGarbage();
    await stasis('restore', web, '--snapshot', 'old', '--require-memory');
    await progress(web, 2);
  });

  test('removed checkpoints and containers leave no dataset behind', async () => {
    await removeContainer(...names);
    await must('stasis', ['rm', web, 'old', 'new']);
    await collectGarbage();
    const daemon = await OwnDaemon.take();
    try {
      await daemon.start((config) => config.replace('[zfs]', '[zfs]\ntrash_grace = 0'));
      await until(
        'the disks of removed containers to be destroyed once their grace time is over',
        () => (datasets().some((name) => name.includes(web)) ? undefined : true),
        60_000,
      );
    } finally {
      await daemon.giveBack();
    }
    assert.deepEqual(
      datasets().filter((name) => name.startsWith(`${stack.root}/reading/`)),
      [],
    );
  });
});
