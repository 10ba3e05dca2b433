import assert from 'node:assert/strict';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { hasErrno } from '../../../src/errors.ts';
import { hasXattrs, readXattrs, setXattr } from '../../../src/sys/xattr.ts';

test('a file system without extended attributes is told from one where a file has none', async () => {
  assert.equal(await hasXattrs(tmpdir()), true);
  assert.equal(await hasXattrs('/proc/self/status'), false);
  await assert.rejects(hasXattrs('/nowhere'), { code: 'ENOENT' });
});

test('an attribute that a file system refuses is an error with its name, and of one that has none there are none', () => {
  const file = '/proc/self/status';
  assert.throws(
    () => setXattr(file, 'user.x', Buffer.from('y')),
    (error: Error) =>
      ['ENOTSUP', 'EOPNOTSUPP', 'EACCES', 'EPERM'].some((name) => hasErrno(error, name)) &&
      error.message.includes(file),
  );
  assert.deepEqual(readXattrs(file), new Map());
  assert.throws(() => readXattrs('/nowhere'), { code: 'ENOENT' });
});
