import { fchown } from 'node:fs';
import { Socket } from 'node:net';
import { promisify } from 'node:util';
import { closeQuietly, enlargePipe, pipe } from '../../src/sys/descriptor.ts';

/**
 * What a process may have written without us. With 64 KiB it and we would wait for each other at every chunk: a gigabyte
 * took a third longer so.
 */
export const PIPE_BYTES = 256 * 1024;

const chown = promisify(fchown);

/** The user and group that own a container's pipes, so that an unprivileged process may open /dev/stdout. */
export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/** One of a process's streams: the child's end, and ours. */
export interface ChildPipe {
  /** For the runtime; to be closed by us when it has been handed over. */
  readonly childFd: number;
  readonly stream: Socket;
}

/** A pipe that the process writes to: its end, and ours as a descriptor that does not block. */
export async function outputPipe(owner: Owner): Promise<{ childFd: number; readFd: number }> {
  const { read, write } = pipe();
  enlargePipe(read, PIPE_BYTES);
  await own(write, owner);
  return { childFd: write, readFd: read };
}

/** A pipe that we write to and the process reads from. */
export async function inputPipe(owner: Owner): Promise<ChildPipe> {
  const { childFd, ours } = await inputDescriptors(owner);
  return { childFd, stream: new Socket({ fd: ours, readable: false, writable: true }) };
}

/** The same, with our end as a descriptor. */
export async function inputDescriptors(owner: Owner): Promise<{ childFd: number; ours: number }> {
  const { read, write } = pipe();
  await own(read, owner);
  return { childFd: read, ours: write };
}

async function own(fd: number, { uid, gid }: Owner): Promise<void> {
  if (uid !== 0 || gid !== 0) await chown(fd, uid, gid);
}

/** Descriptors that belong to this process until they are let go of, all at once. */
export class Held {
  #fds: number[] = [];

  add(fd: number): number {
    this.#fds.push(fd);
    return fd;
  }

  /** Somebody else closes it from now on. */
  forget(fd: number): void {
    this.#fds = this.#fds.filter((held) => held !== fd);
  }

  release(): void {
    for (const fd of this.#fds) closeQuietly(fd);
    this.#fds = [];
  }
}
