import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { ctr } from '../support/stack.ts';

suite('what containerd is told of our snapshotter', () => {
  test('no capability is announced: remap-ids would have user namespaces on files that nobody shifted, rebase a clone of nothing', async () => {
    const about = await ctr('plugins', 'ls', '--detailed', 'id==stasis,type==io.containerd.snapshotter.v1');
    assert.match(about, /address +\/.*stasisd\.sock/);
    assert.doesNotMatch(about, /Capabilities:|remap-ids|rebase/i);
  });
});
