import { open, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { tryLock } from '../../src/sys/lock.ts';
import { isAlive } from '../../src/sys/process.ts';
import type { Paths } from '../paths.ts';

/** Longer than a runtime is waited for at a console socket: ../stdio/console-socket.ts. */
const CONSOLE_KEEP_MS = 120_000;
const EXITS_KEEP_MS = 3_600_000;

/**
 * Takes away the sockets and locks of shims that have ended, of any namespace: where each container or pod has a shim of its own, nobody
 * would come to the place of one again. Whether one has ended is what its lock says, which the kernel took back from it; `claimPlace`
 * knows of locks that are taken away at the moment it gets them. Never throws: what cannot be removed now is found again later.
 */
export async function sweepPlaces(paths: Paths): Promise<void> {
  const { sockets, locks } = paths;
  for (const name of await readdir(locks).catch(() => [])) {
    // Others, which are not of shims, are one for each namespace.
    if (/^[0-9a-f]{20}$/.test(name))
      await sweepPlace(join(locks, name), join(sockets, name), paths).catch(() => undefined);
  }
  await sweepExits(paths.exits);
  for (const name of await readdir(sockets).catch(() => [])) {
    if (!name.startsWith('c-')) continue;
    const path = join(sockets, name);
    const made = await stat(path).then(
      ({ mtimeMs }) => mtimeMs,
      () => Infinity,
    );
    if (Date.now() - made > CONSOLE_KEEP_MS) await rm(path, { force: true }).catch(() => undefined);
  }
}

/** A guard's journal of exits is for those who clear away what it left, which is soon or never. */
async function sweepExits(folder: string): Promise<void> {
  for (const name of await readdir(folder).catch(() => [])) {
    const [pid = '', startTime = ''] = name.split('.');
    const path = join(folder, name);
    const made = (await stat(path).catch(() => undefined))?.mtimeMs ?? Infinity;
    if (isAlive(Number(pid), startTime) || Date.now() - made < EXITS_KEEP_MS) continue;
    await rm(path, { force: true }).catch(() => undefined);
  }
}

async function sweepPlace(lock: string, socket: string, paths: Paths): Promise<void> {
  await using file = await open(lock, 'r+');
  if (!tryLock(file.fd)) return;
  // Another has swept it meanwhile, and a third may have taken the place.
  if ((await file.stat()).ino !== (await stat(lock)).ino) return;
  const others = [...paths.workerSockets(socket), paths.control(socket), paths.events(socket)];
  for (const path of [socket, ...others]) await rm(path, { force: true });
  await rm(lock, { force: true });
}
