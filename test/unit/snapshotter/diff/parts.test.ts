import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { Handover } from '../../../../snapshotter/diff/handover.ts';
import { fromFailure, toFailure } from '../../../../snapshotter/diff/job.ts';
import { lineage } from '../../../../snapshotter/diff/lineage.ts';
import { assertLayer, compressionFor } from '../../../../snapshotter/diff/media-type.ts';
import type { Node } from '../../../../snapshotter/index.ts';
import { isPassing } from '../../../../snapshotter/diff/instant.ts';
import { Code, codeOf, NotFound, Unimplemented } from '../../../../src/errors.ts';

test('layers of every type that is an archive are taken, all others left to the next differ', () => {
  const oci = 'application/vnd.oci.image.layer.v1.tar';
  const docker = 'application/vnd.docker.image.rootfs.diff.tar';
  for (const type of [oci, `${oci}+gzip`, `${oci}+zstd`, docker, `${docker}.gzip`]) assertLayer(type);
  for (const type of [`${oci}+encrypted`, `${oci}+gzip+encrypted`, 'application/vnd.erofs.layer.v1', '']) {
    assert.throws(() => assertLayer(type), Unimplemented, type);
  }
  assert.deepEqual(compressionFor(''), { mediaType: `${oci}+gzip`, compression: 'gzip' });
  assert.equal(compressionFor(`${oci}+zstd`).compression, 'zstd');
  assert.throws(() => compressionFor(`${docker}.gzip`), Unimplemented);
});

test('a lineage goes through the clones in between, and not to strangers', () => {
  const origins: Record<string, string> = { 'p/b': 'p/a@layer', 'p/c': 'p/b@layer' };
  const find = (dataset: string): Node => ({ origin: origins[dataset] }) as Node;
  assert.deepEqual(lineage('p/a@layer', 'p/c@now', find), [
    { from: 'p/b@layer', to: 'p/c@now' },
    { from: 'p/a@layer', to: 'p/b@layer' },
  ]);
  assert.deepEqual(lineage('p/c@now', 'p/c@now', find), []);
  assert.equal(lineage('p/x@layer', 'p/c@now', find), undefined);
  assert.equal(lineage('p/c@later', 'p/c@now', find), undefined);
  assert.equal(lineage('p/c@now', 'p/a@layer', find), undefined);
});

test('only a snapshot of ours is taken for what a diff left', () => {
  assert.ok(isPassing('p/c@stasis-diff-2f1c2f6e-4b61-4dbe-a9a6-0123456789ab'));
  for (const name of [
    'p/c@diff',
    'p/c@stasis-diff-',
    'p/stasis-diff-2f1c2f6e-4b61-4dbe-a9a6-0123456789ab@x',
  ]) {
    assert.ok(!isPassing(name), name);
  }
});

test('an error keeps its code, subject, reason and remedy between threads', () => {
  const error = new NotFound('gone', { subject: 'x', reason: 'y', remedy: 'z' });
  const { code, message, subject, reason, remedy } = fromFailure(structuredClone(toFailure(error)));
  assert.deepEqual([code, message, subject, reason, remedy], [Code.NotFound, 'gone', 'x', 'y', 'z']);
  const full = Object.assign(new Error('write'), { code: 'ENOSPC' });
  assert.equal(codeOf(fromFailure(toFailure(full))), Code.ResourceExhausted);
  assert.equal(codeOf(fromFailure(toFailure(new Error('?')))), Code.Internal);
});

suite('a handover', () => {
  test('lets who pushes wait until his piece is taken, in order', async () => {
    const handover = new Handover<number>();
    const log: string[] = [];
    const pushing = (async () => {
      for (const piece of [1, 2]) {
        await handover.put(piece);
        log.push(`put ${piece}`);
      }
      handover.end();
    })();
    assert.equal(log.length, 0);
    for await (const piece of handover) log.push(`took ${piece}`);
    await pushing;
    assert.deepEqual(
      log.filter((line) => line.startsWith('took')),
      ['took 1', 'took 2'],
    );
  });

  test('tells who pushes when nobody takes any more', async () => {
    const handover = new Handover<number>();
    const waiting = handover.put(1);
    handover.close();
    await assert.rejects(waiting, /nobody takes/);
    await assert.rejects(handover.put(2), /nobody takes/);
    const other = new Handover<number>();
    const pushed = [other.put(1), other.put(2)];
    for await (const _ of other) break;
    await assert.rejects(Promise.all(pushed), /nobody takes/);
  });

  test('tells who takes of a failure', async () => {
    const handover = new Handover<number>();
    handover.end(new Error('broke off'));
    await assert.rejects(async () => {
      for await (const _ of handover);
    }, /broke off/);
  });
});
