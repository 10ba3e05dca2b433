import assert from 'node:assert/strict';
import {
  appendFileSync,
  chmodSync,
  chownSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { after, before, suite, test } from 'node:test';
import { join } from 'node:path';
import { Containerd, type NamespaceClient } from '../../../src/containerd/client.ts';
import { downloadContent } from '../../../src/containerd/content.ts';
import type { Descriptor } from '../../../src/proto/gen/containerd/descriptor.ts';
import type { Mount } from '../../../src/proto/gen/containerd/mount.ts';
import { deviceNumber, makeNode, S_IFCHR, S_IFIFO } from '../../../src/sys/inode.ts';
import { mount, unmount } from '../../../src/sys/mount.ts';
import { setXattr } from '../../../src/sys/xattr.ts';
import { must, stack } from '../support/stack.ts';
import { describeTree } from '../support/tree.ts';

/**
 * An image of Debian's packages, twelve layers with everything that layers hold, unpacked into our snapshotter and into
 * containerd's overlayfs, and diffs that each makes applied to the other. With 1.6 containerd's own differ works on
 * our snapshots, from 1.7 on ours does.
 */
const image = 'docker.io/stasis/debian-small:latest';
const namespace = 'image-test';
const layerType = 'application/vnd.oci.image.layer.v1.tar+gzip';
/** zfs-fuse keeps whole seconds; what overlayfs and the host say of their own files is no content. */
const comparable = {
  wholeSeconds: true,
  attribute: (name: string): boolean => name.startsWith('user.') || name === 'security.capability',
};

suite('an image of many layers', () => {
  const containerd = new Containerd(stack.address);
  const client: NamespaceClient = containerd.namespace(namespace);
  const folder = mkdtempSync(join(stack.state, 'data/tmp/image-test-'));
  let top = '';
  let serial = 0;
  // So that containerd's collector leaves what the test makes.
  const labels = { 'containerd.io/gc.root': new Date().toISOString() };

  before(async () => {
    const file = join(folder, 'image.tar');
    await must(join(stack.project, 'scripts/lib/debian-image'), ['--small', '--name', image, file], 900_000);
    for (const snapshotter of ['stasis', 'overlayfs']) {
      await must('ctr', ['-n', namespace, 'images', 'import', '--snapshotter', snapshotter, file], 600_000);
    }
    rmSync(file);
    // The chain's end is the one that is no parent; both snapshotters have the same names.
    const names: string[] = [];
    const parents = new Set<string>();
    for await (const { info } of client.snapshots.list({ snapshotter: 'stasis', filters: [] })) {
      for (const { name, parent } of info) {
        names.push(name);
        parents.add(parent);
      }
    }
    top = names.find((name) => !parents.has(name)) ?? '';
  });
  after(async () => {
    await must('ctr', ['-n', namespace, 'images', 'rm', '--sync', image], 600_000);
    containerd.close();
    rmSync(folder, { recursive: true, force: true });
  });

  async function mounted<T>(mounts: readonly Mount[], work: (path: string) => Promise<T>): Promise<T> {
    const target = mkdtempSync(join(folder, 'mnt-'));
    for (const { type, source, options } of mounts) await mount({ type, source, target, options });
    try {
      return await work(target);
    } finally {
      await unmount(target);
    }
  }

  /** A snapshot under a name of its own, removed in the end. */
  async function using<T>(
    snapshotter: string,
    kind: 'view' | 'prepare',
    parent: string,
    work: (mounts: Mount[]) => Promise<T>,
  ): Promise<T> {
    const key = `image-test-${++serial}`;
    const { mounts } = await client.snapshots[kind]({ snapshotter, key, parent, labels });
    try {
      return await work(mounts);
    } finally {
      await client.snapshots.remove({ snapshotter, key });
    }
  }

  const describeMounted = (mounts: Mount[], options: { folderTimes: boolean }): Promise<string[]> =>
    mounted(mounts, async (path) => describeTree(path, { ...comparable, ...options }));

  test('has the same content and metadata in ours and in overlayfs', async () => {
    let layers = 0;
    for (let at = top; at !== ''; layers++) {
      const { info } = await client.snapshots.stat({ snapshotter: 'stasis', key: at });
      at = info?.parent ?? '';
    }
    assert.equal(layers, 12);
    const trees: string[][] = [];
    for (const snapshotter of ['stasis', 'overlayfs']) {
      trees.push(
        await using(snapshotter, 'view', top, (mounts) => describeMounted(mounts, { folderTimes: true })),
      );
    }
    assert.deepEqual(trees[0], trees[1]);
    const text = trees[0]?.join('\n') ?? '';
    for (const [what, line] of Object.entries({
      'a set-user-id program': /"\/usr\/bin\/sudo" mode 104755/,
      'a capability': /"\/usr\/bin\/ping" .*security\.capability=01000002002/,
      'a large owner': /owned" mode 106755 owner 3000000:2000000000 .*user\.note=000102/,
      'a device': /"\/dev\/large" mode 20600 .*device/,
      'a FIFO': /fifo" mode 10620/,
      'a name that is not UTF-8': /caf\u00e9/,
      'a hard link': /"\/opt\/links\/c" .* is "\/opt\/links\/b"/,
      'a replaced folder': /"\/opt\/becomes-folder\/in"/,
      'a hard link to a link': /link-too" mode 120777 .* is /,
    })) {
      assert.match(text, line, what);
    }
    for (const gone of ['/opt/removed/', '/opt/opaque/old', '/opt/opaque/kept', '/usr/share/doc"', '.wh.']) {
      assert.ok(!text.includes(gone), gone);
    }
  });

  const SPARSE = 64 << 20;

  /** What a container may do to its files. */
  function work(root: string): void {
    writeFileSync(`${root}/opt/new`, 'new');
    appendFileSync(`${root}/opt/becomes-file`, 'more');
    rmSync(`${root}/usr/share/man`, { recursive: true, force: true });
    rmSync(`${root}/opt/opaque`, { recursive: true });
    mkdirSync(`${root}/opt/opaque`);
    writeFileSync(`${root}/opt/opaque/only`, '');
    linkSync(`${root}/opt/links/b`, `${root}/opt/links/d`);
    renameSync(`${root}/opt/becomes-folder/in`, `${root}/opt/renamed`); // overlayfs cannot rename the folder
    chmodSync(`${root}/usr/bin/nano`, 0o4755);
    setXattr(
      `${root}/usr/bin/less`,
      'security.capability',
      Buffer.from('0100000200200000000000000000000000000000', 'hex'),
    );
    chownSync(`${root}/opt/new`, 3_000_000, 2_000_000_000);
    makeNode(`${root}/opt/device`, S_IFCHR | 0o640, deviceNumber(259, 70_000));
    makeNode(`${root}/opt/pipe`, S_IFIFO | 0o600, 0n);
    const long = `${root}/opt/${'x'.repeat(200)}/${'y'.repeat(200)}`;
    mkdirSync(long, { recursive: true });
    writeFileSync(`${long}/${'z'.repeat(255)}`, 'a long name');
    writeFileSync(`${root}/opt/sparse`, 'begin');
    truncateSync(`${root}/opt/sparse`, SPARSE);
    appendFileSync(`${root}/opt/sparse`, 'end');
    utimesSync(`${root}/opt/sparse`, 1, 1_000_000_000);
    rmSync(`${root}/opt/link-becomes-folder`, { recursive: true });
    writeFileSync(`${root}/opt/link-becomes-folder`, 'a file now');
  }

  const uncompressed = async ({ digest }: Descriptor): Promise<string> =>
    (await client.content.info({ digest })).info?.labels['containerd.io/uncompressed'] ?? '';

  for (const [from, to] of [
    ['stasis', 'overlayfs'],
    ['overlayfs', 'stasis'],
  ] as const) {
    test(`changed on ${from}, its diff makes the same tree on ${to}`, async () => {
      await containerd.withLease(namespace, async (leased) => {
        await using(from, 'view', top, (left) =>
          using(from, 'prepare', top, async (right) => {
            await mounted(right, async (path) => work(path));
            const { diff } = await leased.diff.diff({
              left,
              right,
              mediaType: layerType,
              ref: `image-test-${++serial}`,
              labels: {},
              sourceDateEpoch: undefined,
            });
            assert.ok(diff !== undefined);
            const expected = await describeMounted(right, { folderTimes: false });
            await using(to, 'prepare', top, async (mounts) => {
              const { applied } = await leased.diff.apply({
                diff,
                mounts,
                payloads: {},
                syncFs: to === 'stasis',
              });
              assert.equal(applied?.digest, await uncompressed(diff), 'the content is what its label says');
              assert.deepEqual(await describeMounted(mounts, { folderTimes: false }), expected);
            });
            let size = 0;
            for await (const bytes of downloadContent(leased, diff.digest)) size += bytes.length;
            assert.equal(size, Number(diff.size));
            assert.ok(size < 3_000_000, `the diff holds what changed, not the image: ${size} bytes`);
          }),
        );
      });
    });
  }
});
