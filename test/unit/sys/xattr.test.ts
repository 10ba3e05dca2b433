import assert from 'node:assert/strict';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { hasXattrs } from '../../../src/sys/xattr.ts';

test('a file system without extended attributes is told from one where a file has none', async () => {
  assert.equal(await hasXattrs(tmpdir()), true);
  assert.equal(await hasXattrs('/proc/self/status'), false);
  await assert.rejects(hasXattrs('/nowhere'), { code: 'ENOENT' });
});
