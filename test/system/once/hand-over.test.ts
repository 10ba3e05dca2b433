import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { after, before, suite, test } from 'node:test';
import { checkpointsOf, progress, removeAll, startWriter, uniqueName } from '../support/container.ts';
import { OwnDaemon } from '../support/daemon.ts';
import { killingZfs } from '../support/killing-zfs.ts';
import { attempt, ctr, datasets, importImage, stack, stasis, until } from '../support/stack.ts';

const MEGABYTES = 8;
const withoutGrace = (config: string): string => config.replace('[zfs]', '[zfs]\ntrash_grace = 0');

suite('what is kept by nothing but clones of removed checkpoints is given back', () => {
  const web = uniqueName('loop');
  let daemon: OwnDaemon;
  before(async () => {
    await importImage();
    killingZfs.install();
    await startWriter(web);
    daemon = await OwnDaemon.take();
  });
  after(async () => {
    await daemon.giveBack();
    await removeAll(web);
    killingZfs.remove();
  });

  const own = (): string[] => datasets().filter((name) => name.includes(web));

  /** Bytes of the namespace's containers. */
  const used = (): number =>
    Number(
      execFileSync('zfs', ['get', '-Hp', '-o', 'value', 'used', `${stack.root}/containers`], {
        encoding: 'utf8',
      }),
    );

  /** Has containerd call Cleanup, which it does after it has removed a snapshot. */
  async function cleanUp(): Promise<void> {
    const key = uniqueName('passing');
    await attempt('ctr', ['snapshots', '--snapshotter', 'stasis', 'prepare', key]);
    await attempt('ctr', ['snapshots', '--snapshotter', 'stasis', 'rm', key]);
    await attempt('ctr', ['leases', 'create', '--id', key]);
    await attempt('ctr', ['leases', 'rm', '--sync', key]);
  }

  async function onlyPresentDisk(): Promise<void> {
    await until('the former disks to be destroyed', async () => {
      if (own().length === 1) return true;
      await cleanUp();
      return undefined;
    });
  }

  /** Writes what the rewind then throws away, so that each former disk holds it. */
  async function rewindAndForget(): Promise<void> {
    await stasis('checkpoint', web, '--name', 'l', '--require-memory');
    const write = ['dd', 'if=/dev/urandom', 'of=/big', 'bs=1M', `count=${MEGABYTES}`];
    await ctr('tasks', 'exec', '--exec-id', uniqueName('dd'), web, '/bin/busybox', ...write);
    await stasis('restore', web, '--snapshot', 'l', '--require-memory');
    const { removed } = JSON.parse(await stasis('rm', web, 'l', '--json')) as {
      removed: { waitsFor: string[] }[];
    };
    assert.deepEqual(removed[0]?.waitsFor, [], 'what is left waits for nobody');
    await progress(web, 2);
  }

  test('a checkpoint, a rewind to it and its removal, in a loop, leave one disk and no bytes behind', async () => {
    await daemon.start(withoutGrace);
    await rewindAndForget();
    await onlyPresentDisk();
    const before = used();
    for (let round = 0; round < 2; round++) {
      for (let n = 0; n < 3; n++) await rewindAndForget();
      assert.ok(used() > before + MEGABYTES * 2 ** 20, 'a former disk holds what was written to it');
      await onlyPresentDisk();
    }
    await until('its bytes to be free', () =>
      used() < before + (MEGABYTES * 2 ** 20) / 2 ? true : undefined,
    );
    await progress(web, 20);
    await daemon.kill();
  });

  test('the disk of a container that was removed is given up too, and its clones run on', async (t) => {
    const source = uniqueName('source');
    const clones = [`${source}-1`, `${source}-2`];
    t.after(() => removeAll(source, ...clones));
    await daemon.start(withoutGrace);
    await startWriter(source);
    await stasis('checkpoint', source, '--name', 'c', '--require-memory');
    await stasis('clone', source, '--from', 'c', '--count', '2');
    await removeAll(source);
    await until('the disk of the removed container to be destroyed', async () => {
      const gone = !datasets().some((name) => name.endsWith(`/${source}`) || name.includes(`-${source}`));
      if (!gone) await cleanUp();
      return gone ? true : undefined;
    });
    for (const clone of clones) await progress(clone, 10);
    // The same name, and one of the clones has the snapshot of that name still.
    for (const clone of clones) await stasis('checkpoint', clone, '--name', 'c', '--require-memory');
    for (const clone of clones) await stasis('restore', clone, '--snapshot', 'c', '--require-memory');
    for (const clone of clones) await progress(clone, 2);
  });

  /** Which of the three states the former disk is in: it has the snapshot, it has handed it over, it is gone. */
  function stateOfFormer(): string {
    const disks = own().filter((name) => !/@|\/memory$/.test(name));
    const args = ['get', '-H', '-o', 'name,value', 'stasis:state', ...disks];
    const states = execFileSync('zfs', args, { encoding: 'utf8' });
    const former = /^(\S+)\tsuperseded/m.exec(states)?.[1];
    if (former === undefined) return 'gone';
    return own().some((name) => name.startsWith(`${former}@`)) ? 'kept' : 'handed over';
  }

  test('kill -9 of stasisd before and after each step of it: the next sweep does the rest', async () => {
    const killing = (config: string): string => withoutGrace(killingZfs.use(config));
    /** Starts it, and has it sweep until it is killed or nothing is left to do. */
    const sweepUntil = async (env: Record<string, string>): Promise<void> => {
      killingZfs.reset();
      await daemon.start(killing, { KILL_AMONG: 'promote destroy', ...env });
      await until('stasisd to be killed, or to have nothing left to do', async () => {
        if (!daemon.running || own().length === 1) return true;
        await cleanUp();
        return undefined;
      });
      await daemon.kill();
    };
    const kept = async (): Promise<void> => {
      await daemon.start(); // with its grace time: nothing is given up yet
      await rewindAndForget();
      await daemon.kill();
    };
    await kept();
    await sweepUntil({});
    const all = killingZfs.calls();
    const seen = new Set<string>();
    for (let call = 1; call <= all; call++) {
      for (const when of ['KILL_BEFORE', 'KILL_AFTER']) {
        await kept();
        await sweepUntil({ [when]: String(call) });
        seen.add(stateOfFormer());
        await progress(web, 2);
        await daemon.start(withoutGrace);
        await onlyPresentDisk();
        await stasis('checkpoint', web, '--name', 'whole', '--require-memory');
        await stasis('restore', web, '--require-memory');
        await stasis('rm', web, 'whole');
        assert.deepEqual(await checkpointsOf(web), []);
        await onlyPresentDisk();
        await daemon.kill();
      }
    }
    assert.deepEqual([...seen].sort(), ['gone', 'handed over', 'kept'], 'it was killed in each state');
  });
});
