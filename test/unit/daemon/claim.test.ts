import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { assertUnclaimed, claim } from '../../../src/daemon/claim.ts';
import { StasisError } from '../../../src/errors.ts';
import type { Zfs } from '../../../src/zfs/zfs.ts';

/** A root dataset with these properties. */
function rootWith(values: Record<string, string>): Zfs {
  const properties = new Map(
    Object.entries(values).map(([name, value]) => [name, { value, source: 'local' }]),
  );
  return {
    list: async () => [{ name: 'tank/stasis', properties }],
    set: async (_: string, written: Record<string, string>) => {
      for (const [name, value] of Object.entries(written)) properties.set(name, { value, source: 'local' });
    },
  } as unknown as Zfs;
}

const refusedAs =
  (reason: string) =>
  (error: unknown): boolean =>
    error instanceof StasisError && error.reason === reason && error.remedy !== undefined;

test('a pool of a newer Stasis, or of one that says what we do not know, is not read: a downgrade loses nothing', async () => {
  for (const format of ['2', '17', 'next'])
    await assert.rejects(assertUnclaimed(rootWith({ 'stasis:format': format }), 'tank/stasis'), (error) => {
      assert.match(String(error), new RegExp(`tank/stasis has format ${format}`));
      return refusedAs('newer-format')(error);
    });
  await assertUnclaimed(rootWith({ 'stasis:format': '1' }), 'tank/stasis');
  await assertUnclaimed(rootWith({}), 'tank/stasis');
});

test('a pool that another process serves is refused; one that nobody serves any more is not', async () => {
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  const parent =
    readFileSync(`/proc/${process.ppid}/stat`, 'utf8')
      .replace(/^.*\) /s, '')
      .split(' ')[19] ?? '';
  const served = { 'stasis:daemon': `${boot} ${process.ppid} ${parent}` };
  await assert.rejects(assertUnclaimed(rootWith(served), 'tank/stasis'), refusedAs('pool-served'));
  await assertUnclaimed(
    rootWith({ 'stasis:daemon': `${boot} ${process.ppid} ${Number(parent) + 1}` }),
    'tank/stasis',
  );
  await assertUnclaimed(
    rootWith({ 'stasis:daemon': `another-boot ${process.ppid} ${parent}` }),
    'tank/stasis',
  );
  const own = rootWith({});
  await claim(own, 'tank/stasis');
  await assertUnclaimed(own, 'tank/stasis');
});
