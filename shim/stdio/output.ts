import { close, createWriteStream, open, write, writev } from 'node:fs';
import { mkdir, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { hasErrno } from '../../src/errors.ts';
import { onDisk } from '../../src/sys/thread-pool.ts';
import { fifoStream } from './fifo.ts';

/** Opens what a `path` address names: usually a FIFO; anything else there is appended to. */
export async function openPath(path: string): Promise<Writable> {
  return (await isFifo(path)) ? fifoStream(path) : openFile(path);
}

export async function isFifo(path: string): Promise<boolean> {
  return (await stat(path)).isFIFO();
}

/** Opens a log file for appending; its folder is made where it is missing. */
export async function openFile(path: string): Promise<Writable> {
  await onDisk(() => makeFolder(dirname(path)));
  const stream = createWriteStream(path, { flags: 'a', mode: 0o644, fs: patientFs });
  await new Promise<void>((resolve, reject) => {
    stream.once('open', () => resolve());
    stream.once('error', reject);
  });
  return stream;
}

/** Functions of node:fs, by which a disk that does not answer takes a part of the threads only. */
const patientFs = { open: patient(open), write: patient(write), writev: patient(writev), close };

function patient<Arguments extends unknown[]>(
  call: (...args: [...Arguments, (...results: unknown[]) => void]) => void,
): (...args: [...Arguments, (...results: unknown[]) => void]) => void {
  return (...args) => {
    const done = args.at(-1) as (...results: unknown[]) => void;
    const rest = args.slice(0, -1) as Arguments;
    void onDisk(
      () => new Promise<unknown[]>((resolve) => call(...rest, (...results) => resolve(results))),
    ).then((results) => done(...results));
  };
}

/** Not mkdir's `recursive`: below /proc, where a folder cannot be made, Node asks for ever, and holds a thread. */
async function makeFolder(path: string): Promise<void> {
  try {
    await mkdir(path, { mode: 0o755 });
  } catch (error) {
    if (hasErrno(error, 'EEXIST')) return;
    if (!hasErrno(error, 'ENOENT') || dirname(path) === path) throw error;
    await makeFolder(dirname(path));
    await mkdir(path, { mode: 0o755 }).catch((again: unknown) => {
      if (!hasErrno(again, 'EEXIST')) throw again;
    });
  }
}

/**
 * Passes everything on, waiting for a slow target, and settles when the target has it all and is closed. A target that
 * fails loses the rest, but the source is read to its end: a full disk must not stop the container's process.
 */
export function passOn(source: Readable, target: Writable): Promise<void> {
  return new Promise((resolve) => {
    let failed = false;
    const finish = (): void => {
      source.destroy();
      target.destroy();
      resolve();
    };
    target.once('error', () => {
      failed = true;
      source.unpipe(target);
      source.resume();
    });
    target.once('close', () => {
      if (!failed) finish();
    });
    source.once('end', () => {
      if (failed) finish();
    });
    // A terminal whose other side is gone reads as EIO: that is its end.
    source.once('error', () => (failed ? finish() : target.end()));
    source.once('close', () => (failed ? finish() : target.end()));
    source.pipe(target);
  });
}
