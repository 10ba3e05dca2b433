import assert from 'node:assert/strict';
import { test } from 'node:test';
import { mapsIds } from '../../../src/zfs/abilities.ts';

test('ids are mapped by OpenZFS from 2.2 on Linux from 5.12, and never by zfs-fuse', () => {
  const openzfs = (version: string, kernel: string): boolean => mapsIds({ kind: 'openzfs', version }, kernel);
  assert.equal(openzfs('2.3.9', '6.12.117+deb13-amd64'), true);
  assert.equal(openzfs('2.2.0-1', '5.12.0'), true);
  assert.equal(openzfs('2.10.1', '7.0-rc1'), true);
  assert.equal(openzfs('2.1.11', '6.1.0-28-amd64'), false);
  assert.equal(openzfs('2.3.9', '5.10.0-33-amd64'), false);
  assert.equal(openzfs('unknown', '6.12.1'), false);
  assert.equal(mapsIds({ kind: 'zfs-fuse', version: 'pool version 23' }, '6.12.1'), false);
});
