import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Containerd } from '../../../../src/containerd/client.ts';
import { Code, codeOf, messageOf } from '../../../../src/errors.ts';
import { silent } from '../../../../src/log.ts';
import { ApplyRequest, DiffRequest } from '../../../../src/proto/gen/containerd/diff.ts';
import type { Mount } from '../../../../src/proto/gen/containerd/mount.ts';
import { diffService } from '../../../../snapshotter/diff/service.ts';
import { DiffThreads } from '../../../../snapshotter/diff/threads.ts';
import { harness } from '../harness.ts';
import { prepared, WEB } from '../methods.ts';

const LAYER = 'application/vnd.oci.image.layer.v1.tar+gzip';
const overlay: Mount = {
  type: 'overlay',
  source: 'overlay',
  target: '',
  options: ['workdir=/w', 'upperdir=/u', 'lowerdir=/l'],
};
const bind = (source: string, options = ['rw', 'rbind']): Mount => ({
  type: 'bind',
  source,
  target: '',
  options,
});

test('mounts that are not of this snapshotter are left to the next differ, before anybody is asked for anything', async (t) => {
  const h = await harness(t);
  await prepared(h);
  const containerd = new Containerd('/nowhere/containerd.sock');
  t.after(() => containerd.close());
  const service = diffService({ store: h.store, containerd, threads: new DiffThreads(silent) });
  h.commands(); // those of the preparation
  const context = { signal: new AbortController().signal, metadata: new Map<string, string>() };
  const [mount] = await h.store.mounts(WEB);
  const own = bind(mount?.source ?? '');
  const foreign: Record<string, Mount[]> = {
    overlay: [overlay],
    'a bind mount from elsewhere': [bind('/var/lib/elsewhere/fs')],
    'a folder in ours': [bind(`${own.source}/etc`)],
    'ours under other ids': [bind(own.source, ['rw', 'rbind', 'uidmap=0:1000:10'])],
    'two mounts': [own, overlay],
    'no mount': [],
  };
  for (const [what, mounts] of Object.entries(foreign)) {
    const refused = (error: unknown): boolean => {
      assert.equal(codeOf(error), Code.Unimplemented, `${what}: ${messageOf(error)}`);
      return true;
    };
    const layer = { mediaType: LAYER, digest: `sha256:${'0'.repeat(64)}`, size: 1n, annotations: {} };
    const apply = ApplyRequest.fromPartial({ diff: layer, mounts });
    await assert.rejects(async () => service.apply(apply, context), refused);
    const diff = DiffRequest.fromPartial({ mediaType: LAYER, left: [], right: mounts });
    await assert.rejects(async () => service.diff(diff, context), refused);
  }
  assert.deepEqual(h.commands(), [], 'nothing was asked of ZFS');
});
