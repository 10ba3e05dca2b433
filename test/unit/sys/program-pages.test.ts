import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { hasErrno } from '../../../src/errors.ts';
import { releasePages, releaseProgramPages, unchangedMappings } from '../../../src/sys/program-pages.ts';

const fails = (errno: string) => (error: unknown) => hasErrno(error, errno);

/** An entry of /proc/PID/smaps, with the lines that matter. */
function entry(range: string, permissions: string, name: string, anonymous = 0, swap = 0): string {
  return `${range} ${permissions} 00000000 fe:00 4711                  ${name}
Size:               1024 kB
Rss:                 512 kB
Anonymous:             ${anonymous} kB
Swap:                  ${swap} kB
VmFlags: rd mr mw me sd
`;
}

test('only what a page of the file itself can replace is released', () => {
  const smaps = [
    entry('00400000-00800000', 'r--p', '/opt/my node'),
    entry('00800000-00900000', 'r-xp', '/opt/my node'),
    entry('00900000-00a00000', 'r--p', '/opt/my node', 8), // relocated by the loader
    entry('00a00000-00b00000', 'r--p', '/opt/my node', 0, 8), // the same, swapped out
    entry('00b00000-00c00000', 'rw-p', '/opt/my node'),
    entry('00c00000-00d00000', 'r-xp', '/opt/my node.so'),
    '7f0000000000-7f0000100000 r--p 00000000 00:00 0 \nAnonymous:             0 kB\nSwap:                  0 kB\n',
    '7f0000100000-7f0000200000 r--p 00000000 fe:00 4711   /opt/my node\nRss: 4 kB\n', // a kernel that does not say
  ].join('');
  assert.deepEqual(unchangedMappings(smaps, '/opt/my node'), [
    { start: 0x400000, length: 0x400000 },
    { start: 0x800000, length: 0x100000 },
  ]);
});

test('the program lets most of itself go, and runs on', async () => {
  const resident = (): number => {
    const kib = /^RssFile:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'latin1'));
    return Number(kib?.[1]);
  };
  const before = resident();
  await releaseProgramPages();
  const after = resident();
  assert.ok(after < before * 0.7, `${before} KiB of files before, ${after} after`);
  assert.deepEqual(JSON.parse(JSON.stringify([...'αβ'.normalize('NFD')])), ['α', 'β']);
});

test('to release what is not mapped, or inside a page, fails', async () => {
  await assert.rejects(releasePages({ start: 4096, length: 4096 }), fails('ENOMEM'));
  await assert.rejects(releasePages({ start: 4097, length: 4096 }), fails('EINVAL'));
});
