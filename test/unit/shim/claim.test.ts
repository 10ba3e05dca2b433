import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { announce, claimPlace, retract, type Place } from '../../../shim/lifecycle/claim.ts';
import { sweepPlaces } from '../../../shim/lifecycle/sweep-places.ts';
import { Paths } from '../../../shim/paths.ts';
import { closeQuietly } from '../../../src/sys/descriptor.ts';

/** A place that a shim holds, and at which it listens. */
async function held(t: TestContext): Promise<Required<Place> & { leave: () => void }> {
  const folder = mkdtempSync(join(tmpdir(), 'claim-'));
  const place = {
    socket: join(folder, 's/socket'),
    lock: join(folder, 'locks/lock'),
    announcement: join(folder, 'resident/shim'),
  };
  const lock = (await claimPlace(place)) ?? assert.fail('nobody holds it yet');
  const server = createServer((socket) => socket.destroy());
  await new Promise<void>((resolve) => server.listen(place.socket, resolve));
  t.after(() => {
    server.close();
    rmSync(folder, { recursive: true });
  });
  return { ...place, leave: () => closeQuietly(lock) };
}

test('who finds a shim that has announced itself takes that', async (t) => {
  const place = await held(t);
  await announce(place.announcement, place.socket);
  assert.equal(await claimPlace(place), undefined);
  place.leave();
});

test('a shim that has taken its announcement back gets no task more: who comes then follows it', async (t) => {
  const place = await held(t);
  await announce(place.announcement, place.socket);
  await retract(place.announcement);
  let gone = false;
  const next = claimPlace(place).then((lock) => ({ lock, gone }));
  setTimeout(() => {
    gone = true;
    place.leave();
  }, 100);
  const { lock, gone: after } = await next;
  assert.ok(after && lock !== undefined);
  closeQuietly(lock);
});

test('a shim that stays after all is taken', async (t) => {
  const place = await held(t);
  const next = claimPlace(place);
  setTimeout(() => void announce(place.announcement, place.socket), 100);
  assert.equal(await next, undefined);
  place.leave();
});

test('what shims that have ended left is swept, and a place that one holds, or takes meanwhile, is not', async (t) => {
  const place = await held(t);
  const folder = dirname(dirname(place.lock));
  const paths = new Paths(folder);
  mkdirSync(paths.sockets, { recursive: true });
  const of = (id: string): Place => ({
    socket: paths.socket('/c.sock', 'ns', id),
    lock: paths.lock('/c.sock', 'ns', id),
  });
  const [dead, living] = [of('dead'), of('living')];
  closeQuietly((await claimPlace(dead)) ?? -1);
  const lock = (await claimPlace(living)) ?? assert.fail('nobody holds it yet');
  t.after(() => closeQuietly(lock));
  const consoles = [join(paths.sockets, 'c-old'), join(paths.sockets, 'c-new')] as const;
  for (const file of [dead.socket, living.socket, paths.clearLock('ns'), ...consoles])
    writeFileSync(file, '');
  utimesSync(consoles[0], 1, 1);
  // Guards that have ended: of a task that nobody has cleared away, and of none.
  const journals = ['4194305.7', '4194305.8'] as const;
  mkdirSync(paths.exits, { recursive: true });
  for (const name of journals) writeFileSync(join(paths.exits, name), '');
  mkdirSync(paths.task('ns', 'web'), { recursive: true });
  const record = { shim: { pid: 4194305, startTime: '8' } };
  writeFileSync(join(paths.task('ns', 'web'), 'state.json'), JSON.stringify(record));
  await sweepPlaces(paths);
  const left = [...readdirSync(paths.locks), ...readdirSync(paths.sockets)].sort();
  const expected = [place.lock, place.socket, living.lock, living.socket, paths.clearLock('ns'), consoles[1]];
  assert.deepEqual(left, expected.map((path) => basename(path)).sort());
  assert.deepEqual(readdirSync(paths.exits), [journals[1]]);
  const again = (await claimPlace(dead)) ?? assert.fail('nobody holds it');
  closeQuietly(again);
});

test('a shim that never announces itself is taken when it answers', async (t) => {
  const { socket, lock, leave } = await held(t);
  assert.equal(await claimPlace({ socket, lock }), undefined);
  leave();
});
