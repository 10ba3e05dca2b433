import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { getSystemErrorMap } from 'node:util';
import { Cancelled, DeadlineExceeded, hasErrno, Internal, NotFound, PermissionDenied } from '../errors.ts';
import { DEFAULT_TIMEOUT_MS } from '../sys/command.ts';
import { Busy, ZfsUnavailable } from './errors.ts';
import { connectTo } from './fuse-connection.ts';
import { cloneByIoctl, sendByIoctl, snapshotByIoctl } from './fuse-ioctl.ts';
import type { CallOptions, Properties } from './zfs.ts';

/** Where zfs-fuse listens unless it was built otherwise. */
const USUAL_SOCKET = '/var/run/zfs/zfs_socket';
/** Bytes of one message of zfs-fuse's socket: `zfsfuse_cmd_t` of its zfs_ioctl.h. */
const MESSAGE_BYTES = 32;
const MOUNT_REQUEST = 6;

/**
 * Asks the zfs-fuse daemon on its socket, as the commands do in the end.
 *
 * `zfs mount` calls sync(2) first (and so does `zfs clone`, which mounts): the whole machine's dirty pages, all its disks', are
 * written before it goes on, up to seconds on a busy host. Nothing in ZFS needs that. `zfs snapshot` takes four times as long as
 * what it asks for, and a container stands still meanwhile; so it is with `zfs clone`, for which a container waits.
 */
export class FuseDaemon {
  readonly #program: string;
  #socket: Promise<Found> | undefined;

  /** @param program the `zfs` command that speaks to the same daemon: its path, or a name that PATH has */
  constructor(program: string) {
    this.#program = program;
  }

  /**
   * Mounts a dataset on a folder that exists. Two at once can hang the daemon: the caller queues them.
   * @throws Busy where it is mounted already, NotFound, PermissionDenied, ZfsUnavailable where nothing listens;
   *   DeadlineExceeded and Cancelled say nothing about the mount
   */
  async mount(dataset: string, path: string, { signal, timeoutMs }: CallOptions = {}): Promise<void> {
    const errno = await this.#ask(`mount ${dataset}`, dataset, { signal, timeoutMs }, (socket, end) =>
      ask(socket, mountRequest(dataset, path), end),
    );
    if (errno !== 0) throw refusal(`mount ${dataset}`, errno, dataset);
  }

  /**
   * Makes a snapshot with these properties.
   * @returns whether it is made: if not, the command can tell why, or make it. So too where the program is not zfs-fuse's own: who
   *   puts another in its place wants to see the calls
   * @throws ZfsUnavailable, DeadlineExceeded, Cancelled: it may have been made
   */
  async snapshot(name: string, properties: Properties, call: CallOptions = {}): Promise<boolean> {
    if (!(await this.#find()).direct) return false;
    return this.#ask(`snapshot ${name}`, name, call, (socket, end) =>
      snapshotByIoctl(socket, name, properties, end),
    );
  }

  /** Makes a clone, mounted nowhere. @returns and throws as `snapshot` */
  async clone(
    snapshot: string,
    target: string,
    properties: Properties,
    call: CallOptions = {},
  ): Promise<boolean> {
    if (!(await this.#find()).direct) return false;
    return this.#ask(`clone ${snapshot} to ${target}`, target, call, (socket, end) =>
      cloneByIoctl(socket, { snapshot, target }, properties, end),
    );
  }

  /**
   * Hands over what `zfs send -i` would write.
   * @returns whether it was all; if not, the command can tell why, or do it, and what was handed over means nothing
   * @throws ZfsUnavailable, DeadlineExceeded, Cancelled
   */
  async send(
    from: string,
    to: string,
    onChunk: (chunk: Buffer) => void,
    call: CallOptions = {},
  ): Promise<boolean> {
    if (!(await this.#find()).direct) return false;
    return this.#ask(`compare ${to} with ${from}`, to, call, (socket, end) =>
      sendByIoctl(socket, { from, to }, onChunk, end),
    );
  }

  #find(): Promise<Found> {
    return (this.#socket ??= socketOf(this.#program));
  }

  async #ask<T>(
    what: string,
    subject: string,
    { signal, timeoutMs }: CallOptions,
    work: (socket: string, end: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const deadline = AbortSignal.timeout(timeoutMs ?? DEFAULT_TIMEOUT_MS);
    const end = signal === undefined ? deadline : AbortSignal.any([signal, deadline]);
    try {
      return await work((await this.#find()).path, end);
    } catch (error) {
      if (signal?.aborted === true) throw new Cancelled(`cannot ${what}: cancelled`, { subject });
      if (deadline.aborted)
        throw new DeadlineExceeded(`cannot ${what}: zfs-fuse has not answered in time`, { subject });
      throw new ZfsUnavailable(`cannot ${what}: ${error instanceof Error ? error.message : String(error)}`, {
        subject,
        remedy: 'start it: zfs-fuse',
      });
    }
  }
}

/** Where the daemon of a program listens. */
interface Found {
  readonly path: string;
  /** Whether the program itself has said so, and none that stands before it on PATH hides it. */
  readonly direct: boolean;
}

/** The request, then the names it announces the lengths of; no mount options. Numbers are in the machine's order. */
function mountRequest(dataset: string, path: string): Buffer {
  const source = Buffer.from(dataset);
  const target = Buffer.from(path);
  const head = Buffer.alloc(MESSAGE_BYTES);
  head.writeInt32LE(MOUNT_REQUEST, 0);
  head.writeUInt32LE(source.length, 8);
  head.writeUInt32LE(target.length, 12);
  return Buffer.concat([head, source, target]);
}

/** The answer is an errno of four bytes; the connection holds one of the daemon's eight workers until it is closed. */
async function ask(path: string, request: Buffer, signal: AbortSignal): Promise<number> {
  const { socket } = await connectTo(path, signal);
  return new Promise((resolve, reject) => {
    const answer: Buffer[] = [];
    socket.write(request);
    socket.on('data', (chunk) => {
      answer.push(chunk);
      const all = Buffer.concat(answer);
      if (all.length < 4) return;
      resolve(all.readUInt32LE(0));
      socket.destroy();
    });
    socket.once('error', reject);
    socket.once('close', () => reject(new Error('zfs-fuse closed the connection')));
  });
}

function refusal(what: string, errno: number, dataset: string): Error {
  const [code = `error ${errno}`, text = code] = getSystemErrorMap().get(-errno) ?? [];
  const details = { subject: dataset };
  if (code === 'EBUSY') return new Busy(`cannot ${what}: it is mounted, or its mount point is`, details);
  if (code === 'ENOENT') return new NotFound(`dataset ${dataset} does not exist`, details);
  if (code === 'EPERM' || code === 'EACCES') return new PermissionDenied(`cannot ${what}: ${text}`, details);
  return new Internal(`cannot ${what}: ${text} (${code})`, details);
}

/**
 * The socket's place is compiled into zfs-fuse's programs, and private daemons have others: what the command itself
 * has is the one it speaks to. A wrapper has none: the next `zfs` on PATH does.
 */
async function socketOf(program: string): Promise<Found> {
  let direct = true;
  const folders = (process.env['PATH'] ?? '').split(':').filter((folder) => folder !== '');
  const files = folders.map((folder) => join(folder, program.includes('/') ? 'zfs' : program));
  if (program.includes('/')) files.unshift(program);
  for (const file of files) {
    try {
      if (!(await stat(file)).isFile()) continue;
      const found = /\0(\/[\x21-\x7e]*\/zfs_socket)\0/.exec(await readFile(file, 'latin1'))?.[1];
      if (found !== undefined) return { path: found, direct };
      direct = false;
    } catch (error) {
      if (!['ENOENT', 'ENOTDIR', 'EACCES'].some((name) => hasErrno(error, name))) throw error;
    }
  }
  return { path: USUAL_SOCKET, direct: false };
}
