import assert from 'node:assert/strict';
import {
  closeSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  readSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { descriptorOf } from '../../../shim/guard/successor.ts';
import { DeadlineExceeded, hasErrno } from '../../../src/errors.ts';
import { receiveDescriptor } from '../../../src/sys/scm-rights.ts';
import { ZfsUnavailable } from '../../../src/zfs/errors.ts';
import { FuseDaemon } from '../../../src/zfs/fuse-daemon.ts';
import { nativeList } from '../../../src/zfs/nvlist.ts';
import { openZfs } from '../../../src/zfs/zfs.ts';

const COMMAND_BYTES = 17728;

/** What the daemon says: kind, address (or an errno), length. */
function message(kind: number, address: bigint, length = 0): Buffer {
  const bytes = Buffer.alloc(32);
  bytes.writeInt32LE(kind, 0);
  bytes.writeBigInt64LE(address, 8);
  bytes.writeBigInt64LE(BigInt(length), 16);
  return bytes;
}

/** One end of a conversation: bytes that came, in the order in which they are asked for. */
class Reader {
  #bytes = Buffer.alloc(0);
  #wake: () => void = () => undefined;

  constructor(socket: Socket) {
    socket.on('error', () => undefined);
    if (socket.isPaused()) return;
    socket.on('data', (chunk) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk]);
      this.#wake();
    });
  }

  async take(length: number): Promise<Buffer> {
    while (this.#bytes.length < length) await new Promise<void>((resolve) => (this.#wake = resolve));
    const taken = this.#bytes.subarray(0, length);
    this.#bytes = this.#bytes.subarray(length);
    return taken;
  }
}

/** A daemon that asks and answers as told. @returns the program that names its socket */
async function daemon(
  t: TestContext,
  talk: (socket: Socket, reader: Reader) => Promise<void>,
  options: { pauseOnConnect?: true } = {},
): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'fuse-ioctl-'));
  const path = join(folder, 'zfs_socket');
  const open = new Set<Socket>();
  const server = createServer(options, (socket) => {
    open.add(socket);
    void talk(socket, new Reader(socket));
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  t.after(() => {
    for (const socket of open) socket.destroy();
    server.close();
    rmSync(folder, { recursive: true });
  });
  const program = join(folder, 'zfs');
  writeFileSync(program, `\x7fELF\0${path}\0`);
  return program;
}

test('a snapshot is asked for as the program does it, whatever the pieces in which the daemon speaks', async (t) => {
  const seen: Record<string, Buffer> = {};
  const program = await daemon(t, async (socket, reader) => {
    const request = await reader.take(32);
    const at = request.readBigInt64LE(16);
    socket.write(message(2, at, COMMAND_BYTES));
    const command = await reader.take(COMMAND_BYTES);
    socket.write(
      message(2, command.readBigInt64LE(16664), Number(command.readBigInt64LE(16672))).subarray(0, 7),
    );
    await new Promise((resolve) => setTimeout(resolve, 10));
    socket.write(
      message(2, command.readBigInt64LE(16664), Number(command.readBigInt64LE(16672))).subarray(7),
    );
    const list = await reader.take(Number(command.readBigInt64LE(16672)));
    const history = message(3, command.readBigInt64LE(16720), 8193);
    socket.write(Buffer.concat([message(5, at, COMMAND_BYTES), command.subarray(0, 9000)]));
    socket.write(Buffer.concat([command.subarray(9000), history]));
    const text = await reader.take(Number((await reader.take(32)).readBigInt64LE(16)));
    socket.write(message(1, 0n));
    Object.assign(seen, { request, command, list, text });
  });
  const properties = { 'stasis:a': 'bcd', 'stasis:longer-name': 'hello-world' };
  assert.equal(await new FuseDaemon(program).snapshot('tank/a@x', properties), true);
  while (seen['text'] === undefined) await new Promise((resolve) => setTimeout(resolve, 1)); // it is made before that is read
  assert.deepEqual([seen['request']?.readInt32LE(0), seen['request']?.readUInt32LE(8)], [0, 0x5a24]);
  const [name, value] = [0, 4096].map((from) => seen['command']?.toString('latin1', from, from + 7));
  assert.deepEqual([name, value], ['tank/a\0', 'x\0\0\0\0\0\0']);
  assert.deepEqual(seen['list'], nativeList(properties));
  assert.equal(
    seen['text'].toString(),
    'zfs snapshot -o stasis:a=bcd -o stasis:longer-name=hello-world tank/a@x',
  );
});

test("a list is byte for byte libnvpair's", () => {
  // Seen of zfs-fuse 0.7.0: zfs snapshot -o stasis:a=bcd -o stasis:longer-name=hello-world
  const expected = [
    '0001000000000000010000002800000009000000010000000900000073746173',
    '69733a6100000000000000006263640000000000380000001300000001000000',
    '090000007374617369733a6c6f6e6765722d6e616d6500000000000068656c6c',
    '6f2d776f726c64000000000000000000',
  ];
  const list = nativeList({ 'stasis:a': 'bcd', 'stasis:longer-name': 'hello-world' });
  assert.equal(list.toString('hex'), expected.join(''));
  assert.equal(nativeList({}).toString('hex'), '00010000000000000100000000000000');
  // zfs clone -o canmount=off
  const number = '2800000009000000010000000800000063616e6d6f756e7400000000000000000000000000000000';
  assert.equal(nativeList({ canmount: 0n }).toString('hex'), `000100000000000001000000${number}00000000`);
});

test('a clone is asked for under its new name with the snapshot; one with a property that is sent otherwise is not', async (t) => {
  let asked = 0;
  let seen: Buffer | undefined;
  const program = await daemon(t, async (socket, reader) => {
    asked++;
    const request = await reader.take(32);
    socket.write(message(2, request.readBigInt64LE(16), COMMAND_BYTES));
    seen = Buffer.concat([request, await reader.take(COMMAND_BYTES)]);
    socket.write(message(1, 0n));
  });
  const fuse = new FuseDaemon(program);
  const properties = { canmount: 'off', readonly: 'on', mountpoint: '/mnt/b', 'stasis:a': 'b' };
  assert.equal(await fuse.clone('tank/a@x', 'tank/b', properties), true);
  assert.equal(seen?.readUInt32LE(8), 0x5a17);
  const [name, value] = [32, 32 + 4096].map((from) => seen?.toString('latin1', from, from + 9));
  assert.deepEqual([name, value], ['tank/b\0\0\0', 'tank/a@x\0']);
  for (const [name, value] of [
    ['quota', '1G'],
    ['canmount', 'perhaps'],
    ['readonly', 'constructor'],
    ['compression', 'on'],
  ] as const)
    assert.equal(await fuse.clone('tank/a@x', 'tank/b', { ...properties, [name]: value }), false);
  assert.equal(asked, 1);
});

test('what the daemon refuses, or speaks of in another way, is asked of the command; so is all where another program stands before it', async (t) => {
  const refusing = await daemon(t, async (socket) => void socket.write(message(1, 17n)));
  assert.equal(await new FuseDaemon(refusing).snapshot('tank/a@x', {}), false);
  const other = await daemon(t, async (socket, reader) => {
    socket.write(message(2, (await reader.take(32)).readBigInt64LE(16), COMMAND_BYTES + 8));
  });
  assert.equal(await new FuseDaemon(other).snapshot('tank/a@x', {}), false);
  const unknown = await daemon(t, async (socket) => void socket.write(message(9, 0n)));
  assert.equal(await new FuseDaemon(unknown).snapshot('tank/a@x', {}), false);

  const commands: string[][] = [];
  const made = async (zfs: string): Promise<void> => {
    const door = await openZfs(
      async (_file, args) => {
        if (args[0] === 'snapshot') commands.push([...args]);
        return {
          ...{ exitCode: args[0] === 'version' ? 2 : 0, signal: undefined, stderr: '', durationMs: 1 },
          ...{ timedOut: false, cancelled: false, spawnError: undefined },
          stdout: 'This system is currently running ZFS pool version 23.\n',
        };
      },
      { zfs, zpool: 'zpool' },
    );
    await door.snapshot(['tank/a@x'], { properties: { 'stasis:a': 'b' } });
  };
  const command = ['snapshot', '-o', 'stasis:a=b', 'tank/a@x'];
  await made(refusing);
  assert.deepEqual(commands.splice(0), [command]);

  let asked = 0;
  const real = await daemon(t, async () => void asked++);
  const folder = mkdtempSync(join(tmpdir(), 'fuse-ioctl-'));
  t.after(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, 'zfs'), '#!/bin/sh\nexec /sbin/zfs "$@"\n');
  const before = process.env['PATH'];
  t.after(() => (process.env['PATH'] = before));
  process.env['PATH'] = `${real.slice(0, -4)}:${before ?? ''}`;
  await made(join(folder, 'zfs'));
  assert.deepEqual([commands.splice(0), asked], [[command], 0]);
});

async function readAll(fd: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length;) {
    try {
      at += readSync(fd, bytes, at, length - at, null);
    } catch (error) {
      if (!hasErrno(error, 'EAGAIN')) throw error;
      await sleep(1);
    }
  }
  return bytes;
}

/** Ends of pipes that this process has open. */
function pipes(): number {
  const targets = readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return ''; // that of the listing itself
    }
  });
  return targets.filter((target) => target.startsWith('pipe:')).length;
}

test('a stream goes through a pipe that the daemon is given, to its end, and nothing stays open', async (t) => {
  const before = pipes();
  let command: Buffer | undefined;
  // Node reads nothing of it: a descriptor that comes along with bytes would be lost.
  const program = await daemon(
    t,
    async (socket) => {
      const fd = descriptorOf(socket);
      const at = (await readAll(fd, 32)).readBigInt64LE(16);
      writeSync(fd, message(2, at, COMMAND_BYTES));
      command = await readAll(fd, COMMAND_BYTES);
      writeSync(fd, message(7, 1n));
      let given: { fd: number } | undefined;
      while ((given = receiveDescriptor(fd)) === undefined) await sleep(1);
      writeSync(fd, message(1, 0n));
      await sleep(10); // that it is done is known before all that was written is read
      writeSync(given.fd, 'stream');
      closeSync(given.fd);
    },
    { pauseOnConnect: true },
  );
  const fuse = new FuseDaemon(program);
  const parts: Buffer[] = [];
  assert.equal(await fuse.send('tank/a@x', 'tank/a@y', (chunk) => void parts.push(chunk)), true);
  assert.equal(Buffer.concat(parts).toString(), 'stream');
  const [name, value] = [0, 4096].map((from) => command?.toString('latin1', from, from + 9));
  assert.deepEqual([name, value], ['tank/a@y\0', 'x\0\0\0\0\0\0\0\0']);
  assert.equal(command?.readBigUInt64LE(16696), 1n);
  assert.equal(await fuse.send('tank/a@x', 'tank/b@y', () => undefined), false, 'a clone’s is the command’s');

  const refusing = await daemon(t, async (socket) => void socket.write(message(1, 2n)));
  assert.equal(await new FuseDaemon(refusing).send('tank/a@x', 'tank/a@y', () => undefined), false);
  const silent = new FuseDaemon(await daemon(t, async () => undefined));
  await assert.rejects(
    silent.send('tank/a@x', 'tank/a@y', () => undefined, { timeoutMs: 50 }),
    DeadlineExceeded,
  );
  const nobody = new FuseDaemon(join(program, '..', 'none'));
  assert.equal(await nobody.send('tank/a@x', 'tank/a@y', () => undefined), false);
  await sleep(20);
  assert.equal(pipes(), before);
});

test('a daemon that is silent or hangs up may have made the snapshot: that is no case for the command', async (t) => {
  const silent = new FuseDaemon(await daemon(t, async () => undefined));
  await assert.rejects(silent.snapshot('tank/a@x', {}, { timeoutMs: 50 }), DeadlineExceeded);
  const leaving = new FuseDaemon(await daemon(t, async (socket) => void socket.destroy()));
  await assert.rejects(leaving.snapshot('tank/a@x', {}), ZfsUnavailable);
});
