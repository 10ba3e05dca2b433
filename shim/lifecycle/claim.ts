import { fstatSync, mkdirSync, openSync, statSync } from 'node:fs';
import { readFile, mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Unavailable } from '../../src/errors.ts';
import { closeQuietly } from '../../src/sys/descriptor.ts';
import { tryLock } from '../../src/sys/lock.ts';
import { thisProcess } from '../container/record.ts';

const WAIT_MS = 10_000;
const POLL_MS = 5;

/** Where one shim listens, and the lock that says it lives. */
export interface Place {
  readonly socket: string;
  readonly lock: string;
  /** Where the shim announces itself, if it does: one that has taken that back is about to leave. */
  readonly announcement?: string;
}

/**
 * Makes this process the one shim of its place, or waits until another has become it: of any number that start at once
 * one wins, by a lock that the kernel takes back when its holder dies.
 * @returns the lock to hold, or undefined when another shim answers at the socket and is not about to leave
 * @throws Unavailable when neither happens within ten seconds
 */
export async function claimPlace(place: Place): Promise<number | undefined> {
  mkdirSync(dirname(place.lock), { recursive: true, mode: 0o711 });
  mkdirSync(dirname(place.socket), { recursive: true, mode: 0o711 });
  const deadline = Date.now() + WAIT_MS;
  for (;;) {
    const fd = openSync(place.lock, 'a', 0o600);
    if (tryLock(fd) && isStillAt(fd, place.lock)) {
      // What a dead shim left; nobody listens there while we hold the lock.
      await rm(place.socket, { force: true });
      return fd;
    }
    closeQuietly(fd);
    if ((await answers(place.socket)) && (await isToStay(place))) return undefined;
    if (Date.now() >= deadline) {
      throw new Unavailable(`another shim holds ${place.lock} but does not answer at ${place.socket}`, {
        subject: place.socket,
        remedy: 'end the process that holds the lock (see /proc/locks)',
      });
    }
    await sleep(POLL_MS);
  }
}

/** Whether nobody has swept the lock away since it was opened: sweep-places.ts. Another would be made, and held, in its place. */
function isStillAt(fd: number, path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.ino === fstatSync(fd).ino;
}

/** A shim that leaves would still accept the task, and take it along: who comes then waits until it has gone. */
async function isToStay({ socket, announcement }: Place): Promise<boolean> {
  if (announcement === undefined) return true;
  const text = await readFile(announcement, 'utf8').catch(() => '');
  return text.endsWith(` ${socket}\n`);
}

/** Whether somebody accepts connections at a unix socket. */
export function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const finish = (answer: boolean): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.once('connect', () => finish(true));
    socket.once('error', () => finish(false));
  });
}

/** Tells the launcher of this shim, which is this process or its guard: `pid starttime socket`. */
export async function announce(file: string, socket: string, self = thisProcess()): Promise<void> {
  await mkdir(dirname(file), { recursive: true, mode: 0o711 });
  await writeFile(`${file}.${process.pid}`, `${self.pid} ${self.startTime} ${socket}\n`);
  await rename(`${file}.${process.pid}`, file);
}

/** Takes the announcement back, unless it is another's by now. */
export async function retract(file: string, self = thisProcess()): Promise<void> {
  const text = await readFile(file, 'utf8').catch(() => '');
  if (text.startsWith(`${self.pid} `)) await rm(file, { force: true });
}
