// What zfs-fuse's programs ask its daemon on the socket in place of an ioctl(2) on /dev/zfs: `zfsfuse_cmd_t` of its zfs_ioctl.h.
import { closeSync } from 'node:fs';
import { Socket } from 'node:net';
import { pipe } from '../sys/descriptor.ts';
import { sendDescriptor } from '../sys/scm-rights.ts';
import { connectTo } from './fuse-connection.ts';
import { nativeList } from './nvlist.ts';
import type { Properties } from './zfs.ts';

const MESSAGE_BYTES = 32;
/** Kinds of messages. */
const IOCTL = 0;
const RESULT = 1;
const READ = 2;
const READ_TEXT = 3;
const TEXT = 4;
const WRITE = 5;
const DESCRIPTOR = 7;

/** `ZFS_IOC_CREATE`, `ZFS_IOC_SEND` and `ZFS_IOC_SNAPSHOT` of zfs-fuse 0.7.0. */
const [CREATE, SEND, SNAPSHOT] = [0x5a17, 0x5a1c, 0x5a24];
/** `zfs_cmd_t` of zfs-fuse 0.7.0: another one has another size, which the daemon says before it has done anything. */
const COMMAND_BYTES = 17728;
/** Where things are in it. */
const AT = {
  ...{ name: 0, value: 4096, list: 16664, listBytes: 16672 },
  ...{ cookie: 16696, objectSet: 16704, history: 16720 },
};
/** The descriptor that a stream is to be written to, as the daemon asks for it. */
const OUTPUT = 1n;
/** Less than `HIS_MAX_RECORD_LEN`; names and properties are ASCII. */
const MAX_HISTORY = 8000;
/** `DMU_OST_ZFS`: a file system's. */
const FILE_SYSTEM = 2n;
/** What stands for the addresses of a program that calls: the daemon only hands them back. */
const ADDRESS = { command: 0x1000_0000n, list: 0x2000_0000n, history: 0x3000_0000n };

/**
 * Makes a snapshot of a file system. It takes a quarter of the time of a `zfs snapshot`, most of which goes by before that asks.
 * @returns whether it is made; if not, the daemon refused, or speaks otherwise, and nothing was made
 * @throws what the socket does, the signal's reason too: then it is not known
 */
export function snapshotByIoctl(
  socketPath: string,
  snapshot: string,
  properties: Properties,
  signal: AbortSignal,
): Promise<boolean> {
  const [name = '', value = ''] = snapshot.split('@');
  const history = `zfs snapshot ${assigned(properties)}${snapshot}`;
  const command = { ioctl: SNAPSHOT, name, value, list: nativeList(properties), history };
  return make(socketPath, command, signal);
}

/** What `zfs clone` sends as numbers. */
const numbers = new Map([
  ['canmount=off', 0n],
  ['canmount=on', 1n],
  ['canmount=noauto', 2n],
  ['readonly=off', 0n],
  ['readonly=on', 1n],
]);

/**
 * Makes a clone of a snapshot, mounted nowhere. Properties that are not the user's own are `canmount`, `readonly` and `mountpoint` alone.
 * @returns as `snapshotByIoctl`; false for another property, of which nobody here knows how it is sent
 * @throws as that
 */
export async function cloneByIoctl(
  socketPath: string,
  { snapshot, target }: { snapshot: string; target: string },
  properties: Properties,
  signal: AbortSignal,
): Promise<boolean> {
  const pairs: Record<string, string | bigint> = { ...properties };
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes(':') || name === 'mountpoint') continue;
    const number = numbers.get(`${name}=${value}`);
    if (number === undefined) return false;
    pairs[name] = number;
  }
  const history = `zfs clone ${assigned(properties)}${snapshot} ${target}`;
  const command = { ioctl: CREATE, name: target, value: snapshot, list: nativeList(pairs), history };
  return make(socketPath, command, signal);
}

/** As in the command, for the pool's history. */
function assigned(properties: Properties): string {
  return Object.entries(properties)
    .map(([name, value]) => `-o ${name}=${value} `)
    .join('');
}

/**
 * Reads the stream that `zfs send -i` would write, of two snapshots of one file system.
 * @returns whether it has come to its end; if not, as `snapshotByIoctl`, and what was read of it means nothing
 * @throws as that
 */
export async function sendByIoctl(
  socketPath: string,
  { from, to }: { from: string; to: string },
  onChunk: (chunk: Buffer) => void,
  signal: AbortSignal,
): Promise<boolean> {
  signal.throwIfAborted();
  const [name = '', value = ''] = from.split('@');
  if (!to.startsWith(`${name}@`)) return false;
  const { socket, fd } = await connectTo(socketPath, signal);
  const { read, write } = pipe();
  const stream = new Socket({ fd: read, readable: true, writable: false, signal });
  const end = new Promise<void>((resolve, reject) => {
    stream.once('end', resolve);
    stream.once('error', reject);
  });
  end.catch(() => undefined); // until it is waited for
  stream.on('data', onChunk);
  let open = true;
  const close = (): void => {
    if (open) closeSync(write);
    open = false;
  };
  const give = (): void => {
    sendDescriptor(fd, write);
    close(); // the daemon's is the only one then, and its end that of the stream
  };
  try {
    const sent = await converse(socket, { ioctl: SEND, name: to, value }, { give });
    close();
    await end;
    return sent;
  } finally {
    close();
    socket.destroy();
    stream.destroy();
  }
}

interface Command {
  readonly ioctl: number;
  readonly name: string;
  readonly value: string;
  /** Properties of what is made. */
  readonly list?: Buffer;
  /** As `zpool history` shows it, and as the command would have it. The daemon asks for it only when the thing is made. */
  readonly history?: string;
}

async function make(socketPath: string, command: Command, signal: AbortSignal): Promise<boolean> {
  const { socket } = await connectTo(socketPath, signal);
  return converse(socket, command, {});
}

/** Asks for one thing. @returns whether it is done; the socket is closed then or, of what is made, when the history is told */
function converse(socket: Socket, command: Command, { give }: { give?: () => void }): Promise<boolean> {
  const history = Buffer.from((command.history ?? '').slice(0, MAX_HISTORY));
  const readable = new Map<bigint, Buffer>([
    [ADDRESS.command, bytesOf(command)],
    [ADDRESS.list, command.list ?? Buffer.alloc(0)],
  ]);
  return new Promise((resolve, reject) => {
    const end = (done: boolean): void => {
      resolve(done);
      socket.destroy();
    };
    let pending: Buffer = Buffer.alloc(0);
    /** Bytes of what it writes, that nobody here needs. */
    let skipped = 0;
    const take = (chunk: Buffer): void => {
      pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
      for (;;) {
        const skip = Math.min(skipped, pending.length);
        skipped -= skip;
        pending = pending.subarray(skip);
        if (skipped > 0 || pending.length < MESSAGE_BYTES) return;
        const message = pending.subarray(0, MESSAGE_BYTES);
        pending = pending.subarray(MESSAGE_BYTES);
        const kind = message.readInt32LE(0);
        const [address, length] = [message.readBigUInt64LE(8), message.readBigUInt64LE(16)];
        if (kind === RESULT) return end(message.readInt32LE(8) === 0);
        if (kind === READ) {
          const bytes = readable.get(address);
          if (BigInt(bytes?.length ?? 0) !== length) return end(false);
          socket.write(bytes ?? '');
        } else if (kind === READ_TEXT) {
          socket.write(Buffer.concat([textAnswer(history.length), history]));
          resolve(true); // what is made is told to the pool's history, which goes on beside what comes next
        } else if (kind === WRITE) {
          skipped = Number(length);
        } else if (kind === DESCRIPTOR && give !== undefined) {
          give();
        } else {
          return end(false);
        }
      }
    };
    socket.write(request(command.ioctl));
    socket.on('data', (chunk) => {
      try {
        take(chunk);
      } catch (error) {
        reject(error instanceof Error ? error : new Error(String(error)));
        socket.destroy();
      }
    });
    socket.once('error', reject);
    socket.once('close', () => reject(new Error('zfs-fuse closed the connection')));
  });
}

function request(ioctl: number): Buffer {
  const message = Buffer.alloc(MESSAGE_BYTES);
  message.writeInt32LE(IOCTL, 0);
  message.writeUInt32LE(ioctl, 8);
  message.writeBigUInt64LE(ADDRESS.command, 16);
  return message;
}

function textAnswer(length: number): Buffer {
  const message = Buffer.alloc(MESSAGE_BYTES);
  message.writeInt32LE(TEXT, 0);
  message.writeBigUInt64LE(BigInt(length), 16);
  return message;
}

function bytesOf({ ioctl, name, value, list, history }: Command): Buffer {
  const bytes = Buffer.alloc(COMMAND_BYTES);
  bytes.write(name, AT.name);
  bytes.write(value, AT.value);
  if (list !== undefined) {
    bytes.writeBigUInt64LE(ADDRESS.list, AT.list);
    bytes.writeBigUInt64LE(BigInt(list.length), AT.listBytes);
    bytes.writeBigUInt64LE(FILE_SYSTEM, AT.objectSet);
  }
  if (history !== undefined) bytes.writeBigUInt64LE(ADDRESS.history, AT.history);
  if (ioctl === SEND) bytes.writeBigUInt64LE(OUTPUT, AT.cookie);
  return bytes;
}
