import { open, readdir, rm, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { tryLock } from '../../src/sys/lock.ts';
import { isAlive } from '../../src/sys/process.ts';
import { readRecord } from '../container/record.ts';
import { exitJournal } from '../guard/exit-journal.ts';
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
  await sweepExits(paths);
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

/**
 * A guard's journal of exits is for those who clear away what it left: as long as there is something, which is soon over, or never.
 * They read it as soon as they have read a record that names the guard.
 */
async function sweepExits(paths: Paths): Promise<void> {
  const folder = paths.exits;
  const dead = (await readdir(folder).catch(() => [])).filter((name) => {
    const [pid = '', startTime = ''] = name.split('.');
    return !isAlive(Number(pid), startTime);
  });
  if (dead.length === 0) return;
  const named = await guardsOnRecord(paths);
  for (const name of dead) {
    const path = join(folder, name);
    const made = (await stat(path).catch(() => undefined))?.mtimeMs ?? Infinity;
    if (named.has(name) && Date.now() - made < EXITS_KEEP_MS) continue;
    await rm(path, { force: true }).catch(() => undefined);
  }
}

/** Names of the journals of those who keep a task, in any namespace, by its record. */
async function guardsOnRecord({ runDir }: Paths): Promise<Set<string>> {
  const all = join(runDir, 'tasks');
  const named = new Set<string>();
  for (const namespace of await readdir(all).catch(() => []))
    for (const id of await readdir(join(all, namespace)).catch(() => [])) {
      const record = await readRecord(join(all, namespace, id)).catch(() => undefined);
      if (record?.shim !== undefined) named.add(basename(exitJournal('', record.shim)));
    }
  return named;
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
