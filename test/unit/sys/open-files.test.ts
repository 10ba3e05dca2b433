import assert from 'node:assert/strict';
import { closeSync, openSync, readFileSync } from 'node:fs';
import test from 'node:test';
import { hasErrno } from '../../../src/errors.ts';
import { hasRoomFor, withOpenFiles } from '../../../src/sys/open-files.ts';

function limits(): string[] {
  return /^Max open files +(\S+) +(\S+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.slice(1) ?? [];
}

test('another limit of open files holds for the work alone, also when it fails', () => {
  const [soft, hard] = limits();
  assert.deepEqual(
    withOpenFiles(77, () => limits()),
    ['77', hard],
  );
  assert.deepEqual(limits(), [soft, hard]);
  assert.throws(() =>
    withOpenFiles(78, () => {
      throw new Error('work');
    }),
  );
  assert.deepEqual(limits(), [soft, hard]);
  assert.deepEqual(
    withOpenFiles(2 ** 50, () => limits()),
    [hard, hard],
    'no more than the hard limit',
  );
});

test('a limit with too little above what is open is told', () => {
  assert.equal(hasRoomFor(2 ** 20), true);
  assert.equal(hasRoomFor(128), false);
  const fds = Array.from({ length: 100 }, () => openSync('/dev/null', 'r'));
  assert.equal(hasRoomFor(200), false);
  fds.forEach((fd) => closeSync(fd));
  assert.throws(
    () => withOpenFiles(0, () => hasRoomFor(5)),
    (error) => hasErrno(error, 'EMFILE') || hasErrno(error, 'EINVAL'),
  );
});
