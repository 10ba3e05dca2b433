import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { candidates, deviceOf, dumpLines, remakeTmpfs, recordTmpfs } from '../../../src/criu/tmpfs.ts';
import { parseMountTable } from '../../../src/sys/mount-table.ts';

const folder = mkdtempSync(join(tmpdir(), 'stasis-tmpfs-'));
after(() => rmSync(folder, { recursive: true }));

const host = parseMountTable('30 1 0:70 / /run/pods/shm rw - tmpfs shm rw,size=65536k');
const targets = (...lines: string[]): string[] =>
  candidates(parseMountTable(lines.join('\n')), host).map(({ target }) => target);

test('a tmpfs that only the container has is left out of the image', () => {
  assert.deepEqual(
    targets(
      '1 0 0:50 / / rw - overlay overlay rw',
      '2 1 0:51 / /run rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755',
      '3 1 0:52 / /proc/acpi ro - tmpfs tmpfs ro',
    ),
    ['/run', '/proc/acpi'],
  );
});

test('what somebody else has too, what cannot be told to CRIU or made anew, is not', () => {
  assert.deepEqual(
    targets('1 0 0:70 / /dev/shm rw - tmpfs shm rw,size=65536k', '2 0 0:71 /sub /x rw - tmpfs t rw'),
    [],
    'mounted on the host; not the whole file system',
  );
  assert.deepEqual(
    targets('1 0 0:51 / /a rw - tmpfs t rw', '2 0 0:51 / /b rw - tmpfs t rw'),
    [],
    'bound twice',
  );
  assert.deepEqual(
    targets('1 0 0:51 / /a rw - tmpfs t rw', '2 0 0:52 / /a rw - tmpfs t rw'),
    [],
    'one hides the other',
  );
  assert.deepEqual(
    targets(
      '1 0 0:51 / /with\\040blank rw - tmpfs t rw',
      '2 0 0:52 / /b]:x rw - tmpfs t rw',
      '3 0 0:53 / /c rw - tmpfs t rw,context=system_u:object_r:tmp_t:s0',
      '4 0 0:54 / /d rw - tmpfs has\\011tab rw',
    ),
    [],
  );
});

test('device numbers are written as the mount table writes them', () => {
  assert.equal(deviceOf(statSync('/proc/self').dev), procDevice());
  assert.equal(deviceOf(0x12345), '291:69');
});

function procDevice(): string {
  const { dev } = statSync('/proc');
  return `${(dev >> 8) & 0xfff}:${(dev & 0xff) | ((dev >> 12) & 0xfff00)}`;
}

test('CRIU is told of each by the place it has in the container', () => {
  const one = { key: 'stasis-tmpfs-0', target: '/run', source: 'tmpfs', options: ['rw'], modifiedMs: 0 };
  assert.deepEqual(dumpLines([one]), ['external mnt[/run]:stasis-tmpfs-0']);
});

test('an image that leaves nothing out is restored without further mounts', async () => {
  await recordTmpfs(folder, []);
  await using made = await remakeTmpfs(folder, join(folder, 'mounts'));
  assert.deepEqual(made.lines, []);
});

test('an image with a hostile name for a mount is refused', async () => {
  const hostile = { key: '../../etc', target: '/run', source: 'tmpfs', options: ['rw'], modifiedMs: 0 };
  writeFileSync(join(folder, 'stasis-tmpfs.json'), JSON.stringify([hostile]));
  await assert.rejects(remakeTmpfs(folder, join(folder, 'mounts')), /is no name of a mount/);
});
