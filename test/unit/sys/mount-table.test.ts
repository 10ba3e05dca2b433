import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseMountTable } from '../../../src/sys/mount-table.ts';

test('mount lines with and without optional fields, and with escaped characters, are read', () => {
  const text = [
    '44 27 0:41 / /run/stasis/mnt/a rw,relatime - fuse.zfs tank/stasis/a rw,user_id=0',
    '45 27 0:42 /rootfs /run/with\\040space ro shared:5 master:1 - zfs tank/x\\011y rw',
    'not a mount',
    '',
  ].join('\n');
  assert.deepEqual(parseMountTable(text), [
    {
      ...{ id: 44, source: 'tank/stasis/a', type: 'fuse.zfs', root: '/', target: '/run/stasis/mnt/a' },
      ...{ device: '0:41', superOptions: 'rw,user_id=0' },
    },
    {
      ...{ id: 45, source: 'tank/x\ty', type: 'zfs', root: '/rootfs', target: '/run/with space' },
      ...{ device: '0:42', superOptions: 'rw' },
    },
  ]);
});
