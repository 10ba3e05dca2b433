import assert from 'node:assert/strict';
import { chmod, chown, lstat, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { Code, codeOf, messageOf } from '../../../src/errors.ts';
import type { Mount } from '../../../src/proto/gen/containerd/mount.ts';
import { Kind, type Info, type SnapshotsDefinition } from '../../../src/proto/gen/containerd/snapshots.ts';
import type { GrpcClient } from '../../../src/api/grpc-client.ts';
import { slowness } from '../../system/support/slowness.ts';

/** What a backend must offer to be tested. */
export interface Backend {
  readonly snapshots: GrpcClient<SnapshotsDefinition>;
  /** Runs `work` on a folder where the mounts are performed, and takes them away again. */
  mounted<T>(mounts: readonly Mount[], work: (folder: string) => Promise<T>): Promise<T>;
  /** Whether a view cannot be written to past its mount either; false where left out. */
  readonly guardsViews?: boolean;
}

const labels = { 'containerd.io/gc.root': '2026-01-01T00:00:00Z' };
const snapshotter = 'stasis';

type Change = (folder: string) => Promise<void>;

/**
 * What containerd demands of every snapshotter, by the names of its own suite (core/snapshots/testsuite), through
 * the gRPC service. `make` gives a backend with nothing in it. `real`: the kernel performs the mounts, and files
 * keep their owners and sizes; cases that need it are left out of the run on a fake.
 */
export function conformance(make: (t: TestContext) => Promise<Backend>, { real }: { real: boolean }): void {
  const each = (name: string, body: (use: Use, t: TestContext) => Promise<void>): void => {
    test(name, async (t) => body(new Use(await make(t)), t));
  };

  each('Basic: layers stack up, and a parent stays until its children are gone', async (use) => {
    await use.layer('committed', '', write('foo', 'foo\n'), makeDir('a/b/c'));
    assert.deepEqual(await use.kindAndParent('committed'), [Kind.COMMITTED, '']);
    await assert.rejects(use.stat('prepare-committed'), withCode(Code.NotFound));
    await use.layer('next', 'committed', write('bar', 'bar\n'), write('foo', 'bar\n'), remove('a/b'));
    assert.deepEqual(await use.kindAndParent('next'), [Kind.COMMITTED, 'committed']);
    const infos = await use.list();
    assert.deepEqual(
      infos.find((info) => info.name === 'next'),
      await use.stat('next'),
    );
    assert.deepEqual(await use.read(await use.view('view', 'next')), {
      a: 'dir',
      bar: 'bar\n',
      foo: 'bar\n',
    });
    await use.remove('view');
    await assert.rejects(
      use.remove('committed'),
      (error) => codeOf(error) === Code.FailedPrecondition && messageOf(error).includes('remove'),
    );
    await use.remove('next');
    await use.remove('committed');
    assert.deepEqual(await use.list(), []);
  });

  each('StatActive', async (use) => {
    await use.prepare('active', '');
    const info = await use.stat('active');
    assert.deepEqual([info.name, info.kind, info.parent, info.labels], ['active', Kind.ACTIVE, '', labels]);
  });

  each('StatComitted: also while the snapshot is still mounted', async (use) => {
    const mounts = await use.prepare('active', '');
    await use.backend.mounted(mounts, async (folder) => {
      await writeFile(join(folder, 'foo'), 'foo\n');
      await use.commit('committed', 'active');
    });
    assert.deepEqual(await use.kindAndParent('committed'), [Kind.COMMITTED, '']);
    assert.deepEqual(await use.read(await use.view('view', 'committed')), { foo: 'foo\n' });
  });

  each('TransitivityTest', async (use) => {
    await use.layer('a', '', write('foo', 'foo\n'));
    await use.layer('b', 'a', write('foo', 'foo bar\n'));
    assert.equal((await use.stat('b')).parent, 'a');
    assert.equal((await use.stat((await use.stat('b')).parent)).parent, '');
  });

  each('PreareViewFailingtest: a key is used once, a parent must be committed', async (use) => {
    await use.layer('a', '');
    await use.prepare('key', 'a');
    await assert.rejects(use.prepare('key', 'a'), withCode(Code.AlreadyExists));
    await assert.rejects(use.view('key', 'a'), withCode(Code.AlreadyExists));
    await use.view('view', 'a');
    await assert.rejects(use.view('view', 'a'), withCode(Code.AlreadyExists));
    await assert.rejects(use.prepare('other', 'absent'), withCode(Code.NotFound));
    await assert.rejects(use.prepare('other', 'key'), withCode(Code.InvalidArgument));
  });

  each('Update: labels by mask, whole or one, and the time moves', async (use) => {
    await use.layer('a', '');
    const update = async (
      changes: Record<string, string>,
      updateMask: string[] | undefined,
    ): Promise<Record<string, string>> => {
      const before = await use.stat('a');
      const info = { ...before, labels: changes };
      const { info: after } = await use.backend.snapshots.update({ snapshotter, info, updateMask });
      assert.deepEqual(after, await use.stat('a'));
      const times = [before.updatedAt, after?.updatedAt].map(
        (time) => (time?.seconds ?? 0n) * 1_000_000_000n + BigInt(time?.nanos ?? 0),
      );
      assert.ok((times[1] ?? 0n) > (times[0] ?? 0n), 'the time of the last change must move');
      return after?.labels ?? {};
    };
    assert.deepEqual(await update({ l1: 'v1', l2: 'v2' }, undefined), { l1: 'v1', l2: 'v2' });
    assert.deepEqual(await update({ l2: 'v3' }, ['labels.l2']), { l1: 'v1', l2: 'v3' });
    assert.deepEqual(await update({}, ['labels.l1']), { l2: 'v3' });
    assert.deepEqual(await update({ l3: 'v', l2: '' }, ['labels']), { l3: 'v' });
    await assert.rejects(update({}, ['parent']), withCode(Code.InvalidArgument));
    const absent = { ...(await use.stat('a')), name: 'absent' };
    await assert.rejects(
      use.backend.snapshots.update({ snapshotter, info: absent, updateMask: undefined }),
      withCode(Code.NotFound),
    );
  });

  each('Remove: the key is free at once, a parent without children goes', async (use) => {
    await use.layer('a', '');
    await use.prepare('key', 'a');
    await use.remove('key');
    await assert.rejects(use.remove('key'), withCode(Code.NotFound));
    await use.prepare('key', 'a');
    await assert.rejects(use.remove('a'), withCode(Code.FailedPrecondition));
    await use.remove('key');
    await use.remove('a');
    await assert.rejects(use.stat('a'), withCode(Code.NotFound));
    await use.layer('a', '');
  });

  each('Walk: filters choose by name, parent, kind and label', async (use) => {
    await use.layer('a', '');
    await use.layer('b', 'a');
    await use.prepare('c', 'b', { ...labels, 'my.label/x': 'one two' });
    await use.view('d', 'b');
    const names = async (...filters: string[]): Promise<string[]> =>
      (await use.list(filters)).map((info) => info.name).sort();
    assert.deepEqual(await names(), ['a', 'b', 'c', 'd']);
    assert.deepEqual(await names('kind==active'), ['c']);
    assert.deepEqual(await names('name==a', 'kind==view'), ['a', 'd']);
    assert.deepEqual(await names('parent==b,kind!=view'), ['c']);
    assert.deepEqual(await names('labels."my.label/x"=="one two"'), ['c']);
    assert.deepEqual(await names('name~=^[ab]$'), ['a', 'b']);
    assert.deepEqual(await names('parent'), ['b', 'c', 'd']);
    await assert.rejects(names('kind=='), withCode(Code.InvalidArgument));
  });

  each('LayerFileupdate', async (use) => {
    await use.layer('1', '', write('foo', 'foo1'), makeDir('dir'), write('dir/foo', 'foo2'));
    await use.layer('2', '1', write('foo', 'update1'), write('dir/foo', 'update2'));
    await use.layer('3', '2');
    assert.deepEqual(await use.read(await use.view('v', '3')), {
      dir: 'dir',
      'dir/foo': 'update2',
      foo: 'update1',
    });
  });

  each('RemoveDirectoryInLowerLayer: and made anew, it has nothing of the old one', async (use) => {
    await use.layer('1', '', makeDir('dir1'), write('dir1/foo', 'foo'), makeDir('dir1/dir2'));
    await use.layer('2', '1', remove('dir1'), makeDir('dir1'), write('dir1/f2', 'f2'));
    assert.deepEqual(await use.read(await use.view('v', '2')), { dir1: 'dir', 'dir1/f2': 'f2' });
  });

  if (real)
    each('Chown', async (use) => {
      await use.layer('1', '', makeDir('opt'), async (folder) => chown(join(folder, 'opt'), 1, 1));
      await use.layer('2', '1', async (folder) => chown(join(folder, 'opt'), 3_000_000, 2));
      const { uid, gid } = await use.lstat(await use.view('v', '2'), 'opt');
      assert.deepEqual([uid, gid], [3_000_000, 2]);
    });

  each('DirectoryPermissionOnCommit', async (use) => {
    await use.layer('1', '', makeDir('d1'), async (folder) => chmod(join(folder, 'd1'), 0o700));
    await use.layer('2', '1', write('d1/f', 'x'));
    assert.equal((await use.lstat(await use.view('v', '2'), 'd1')).mode & 0o777, 0o700);
  });

  each('RemoveIntermediateSnapshot', async (use) => {
    await use.layer('base', '');
    await use.layer('inter', 'base');
    await use.prepare('top', 'inter');
    await assert.rejects(use.remove('inter'), withCode(Code.FailedPrecondition));
    await use.remove('top');
    await use.remove('inter');
    await use.remove('base');
  });

  each('DeletedFilesInChildSnapshot', async (use) => {
    await use.layer('1', '', write('foo', 'foo'), write('foobar', 'foobar'));
    await use.layer('2', '1', remove('foobar'));
    await use.layer('3', '2');
    assert.deepEqual(await use.read(await use.view('v', '3')), { foo: 'foo' });
  });

  each('MoveFileFromLowerLayer', async (use) => {
    await use.layer(
      '1',
      '',
      makeDir('dir1'),
      write('dir1/f1', 'Hello'),
      makeDir('dir2'),
      write('dir2/f2', 'World'),
    );
    await use.layer(
      '2',
      '1',
      async (folder) => rename(join(folder, 'dir1/f1'), join(folder, 'f2')),
      async (folder) => rename(join(folder, 'dir2'), join(folder, 'dir3')),
    );
    assert.deepEqual(await use.read(await use.view('v', '2')), {
      dir1: 'dir',
      dir3: 'dir',
      'dir3/f2': 'World',
      f2: 'Hello',
    });
  });

  each('ViewReadonly: in View and in Mounts, and it cannot be committed', async (use) => {
    await use.layer('a', '', write('foo', 'foo'));
    for (const [key, parent] of [
      ['view', 'a'],
      ['empty', ''],
    ] as const) {
      const made = await use.view(key, parent);
      const { mounts } = await use.backend.snapshots.mounts({ snapshotter, key });
      for (const each of [made, mounts]) {
        assert.ok(
          each.every((mount) => mount.options.includes('ro') && !mount.options.includes('rw')),
          JSON.stringify(each),
        );
        if (!real) continue;
        await use.backend.mounted(each, async (folder) => {
          await assert.rejects(writeFile(join(folder, 'x'), 'x'), /EROFS/);
        });
        // Past the mount that clients get too, where there is anything that a write could spoil.
        if (parent === '' || use.backend.guardsViews !== true) continue;
        for (const { source } of each) await assert.rejects(writeFile(join(source, 'x'), 'x'), /EROFS/);
      }
    }
    await assert.rejects(use.commit('b', 'view'), withCode(Code.FailedPrecondition));
  });

  each('StatInWalk', async (use) => {
    await use.layer('a', '');
    await use.prepare('b', 'a');
    for await (const { info } of use.backend.snapshots.list({ snapshotter, filters: [] })) {
      for (const each of info) assert.deepEqual(await use.stat(each.name), each);
    }
  });

  each('CloseTwice: an answer is the same however often it is asked for', async (use) => {
    await use.prepare('a', '');
    const { mounts } = await use.backend.snapshots.mounts({ snapshotter, key: 'a' });
    assert.deepEqual((await use.backend.snapshots.mounts({ snapshotter, key: 'a' })).mounts, mounts);
    await use.backend.snapshots.cleanup({ snapshotter });
    await use.backend.snapshots.cleanup({ snapshotter });
    assert.equal((await use.stat('a')).kind, Kind.ACTIVE);
  });

  each('RootPermission', async (use) => {
    const mounts = await use.prepare('a', '');
    assert.equal((await use.lstat(mounts, '.')).mode & 0o777, 0o755);
  });

  each('Rename: a folder of a lower layer can be renamed', async (use) => {
    await use.layer('1', '', makeDir('dir1'), write('dir1/f', 'f'));
    await use.layer('2', '1', async (folder) => rename(join(folder, 'dir1'), join(folder, 'dir2')));
    assert.deepEqual(await use.read(await use.view('v', '2')), { dir2: 'dir', 'dir2/f': 'f' });
  });

  each('128LayersMount: a long chain has all of its layers', async (use) => {
    // No limit of ours depends on the number. In memory each layer is a copy of all below it.
    const count = real && slowness === 1 ? 128 : 24;
    for (let at = 1; at <= count; at++)
      await use.layer(`${at}`, at === 1 ? '' : `${at - 1}`, write(`f${at}`, `${at}`));
    const files = await use.read(await use.view('v', `${count}`));
    assert.equal(Object.keys(files).length, count);
    assert.equal(files['f1'], '1');
  });

  each('Mounts: unknown and committed snapshots have none', async (use) => {
    await use.layer('a', '');
    await assert.rejects(
      use.backend.snapshots.mounts({ snapshotter, key: 'absent' }),
      withCode(Code.NotFound),
    );
    await assert.rejects(
      use.backend.snapshots.mounts({ snapshotter, key: 'a' }),
      withCode(Code.FailedPrecondition),
    );
  });

  each('Commit: the name must be free, the key active; labels are replaced', async (use) => {
    await use.layer('a', '');
    await use.prepare('key', 'a');
    await assert.rejects(use.commit('a', 'key'), withCode(Code.AlreadyExists));
    await assert.rejects(use.commit('b', 'absent'), withCode(Code.NotFound));
    await assert.rejects(use.commit('b', 'a'), withCode(Code.FailedPrecondition));
    await use.backend.snapshots.commit({
      snapshotter,
      name: 'b',
      key: 'key',
      labels: { other: 'x' },
      parent: '',
    });
    assert.deepEqual((await use.stat('b')).labels, { other: 'x' });
    await assert.rejects(use.stat('key'), withCode(Code.NotFound));
  });

  if (real)
    each('Usage: what a snapshot adds to its parent', async (use) => {
      const usage = async (key: string): Promise<{ size: bigint; inodes: bigint }> =>
        use.backend.snapshots.usage({ snapshotter, key });
      await use.layer('a', '', write('big', Buffer.alloc(2 << 20, 'xy12')));
      assert.ok((await usage('a')).size > 0n);
      await assert.rejects(usage('absent'), withCode(Code.NotFound));
      await use.prepare('b', 'a');
      assert.ok((await usage('b')).size < 1n << 20n, 'the parent is not counted');
    });
}

/** The service with fewer words, and files through its mounts. */
class Use {
  readonly backend: Backend;

  constructor(backend: Backend) {
    this.backend = backend;
  }

  async prepare(key: string, parent: string, given: Record<string, string> = labels): Promise<Mount[]> {
    return (await this.backend.snapshots.prepare({ snapshotter, key, parent, labels: given })).mounts;
  }

  async view(key: string, parent: string): Promise<Mount[]> {
    return (await this.backend.snapshots.view({ snapshotter, key, parent, labels })).mounts;
  }

  async commit(name: string, key: string): Promise<void> {
    await this.backend.snapshots.commit({ snapshotter, name, key, labels, parent: '' });
  }

  async remove(key: string): Promise<void> {
    await this.backend.snapshots.remove({ snapshotter, key });
  }

  async stat(key: string): Promise<Info> {
    const { info } = await this.backend.snapshots.stat({ snapshotter, key });
    assert.ok(info !== undefined);
    return info;
  }

  async kindAndParent(key: string): Promise<[Kind, string]> {
    const { kind, parent } = await this.stat(key);
    return [kind, parent];
  }

  async list(filters: string[] = []): Promise<Info[]> {
    const all: Info[] = [];
    for await (const { info } of this.backend.snapshots.list({ snapshotter, filters })) all.push(...info);
    return all;
  }

  /** Prepares, changes and commits. */
  async layer(name: string, parent: string, ...changes: Change[]): Promise<void> {
    const mounts = await this.prepare(`prepare-${name}`, parent);
    if (changes.length > 0) {
      await this.backend.mounted(mounts, async (folder) => {
        for (const change of changes) await change(folder);
      });
    }
    await this.commit(name, `prepare-${name}`);
  }

  /** Every path with its content; folders as `dir`. */
  async read(mounts: readonly Mount[]): Promise<Record<string, string>> {
    return this.backend.mounted(mounts, async (folder) => {
      const found: Record<string, string> = {};
      const names = await readdir(folder, { recursive: true });
      for (const name of names.sort()) {
        const path = join(folder, name);
        found[name] = (await lstat(path)).isDirectory() ? 'dir' : await readFile(path, 'utf8');
      }
      return found;
    });
  }

  async lstat(mounts: readonly Mount[], name: string): Promise<{ mode: number; uid: number; gid: number }> {
    return this.backend.mounted(mounts, async (folder) => lstat(join(folder, name)));
  }
}

function write(name: string, content: string | Buffer): Change {
  return (folder) => writeFile(join(folder, name), content);
}

function makeDir(name: string): Change {
  return async (folder) => {
    await mkdir(join(folder, name), { recursive: true });
  };
}

function remove(name: string): Change {
  return (folder) => rm(join(folder, name), { recursive: true });
}

function withCode(code: Code): (error: unknown) => boolean {
  return (error) => {
    assert.equal(codeOf(error), code, messageOf(error));
    return true;
  };
}
