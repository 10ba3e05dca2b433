// Bad input on the shim's own socket, past containerd: a clear error or a closed connection, and the others are served.
import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { defaultSpec } from '../../../src/cli/default-spec.ts';
import { Code, codeOf } from '../../../src/errors.ts';
import { TaskDefinition, type CreateTaskRequest } from '../../../src/proto/gen/containerd/task.ts';
import { Client, type ServiceClient } from '../../../ttrpc/index.ts';
import { pidOf, removeContainer, statusOf, uniqueName } from '../support/container.ts';
import { attempt, ctr, image, importImage, runtime, stack, until } from '../support/stack.ts';
import { runDir, shimPid, shimSocket } from './shims.ts';

const victim = uniqueName('hostile');
let folder: string;
let client: Client;
let tasks: ServiceClient<TaskDefinition>;
let shim: number;
let process1: number | undefined;

before(async () => {
  await importImage();
  folder = mkdtempSync(join(stack.state, 'data/tmp/hostile-'));
  await ctr('run', '-d', '--null-io', '--runtime', runtime, image, victim, '/bin/sleep', '600');
  client = await Client.connect(shimSocket(victim));
  tasks = client.service(TaskDefinition);
  [shim, process1] = [await shimPid(victim), await pidOf(victim)];
});
after(async () => {
  client.close();
  await removeContainer(victim);
  rmSync(folder, { recursive: true });
});

/** The container that was there before is as it was, and its shim the same. */
async function unharmed(): Promise<void> {
  assert.deepEqual([await shimPid(victim), await pidOf(victim)], [shim, process1]);
  assert.equal(await statusOf(victim), 'RUNNING');
  assert.equal((await attempt('ctr', ['tasks', 'exec', '--exec-id', 'e', victim, '/bin/true'])).exitCode, 0);
}

async function codes(calls: Record<string, () => Promise<unknown>>): Promise<Record<string, number>> {
  const seen: Record<string, number> = {};
  for (const [name, call] of Object.entries(calls)) {
    seen[name] = await call().then(
      () => Code.OK,
      (error: unknown) => codeOf(error),
    );
  }
  return seen;
}

const all = (calls: Record<string, unknown>, code: number): Record<string, number> =>
  Object.fromEntries(Object.keys(calls).map((name) => [name, code]));

const any = (typeUrl: string, value: string | Buffer) => ({ typeUrl, value: Buffer.from(value) });
const RUNC = 'containerd.runc.v1.Options';
/** A field of length 255 that is not there. */
const CUT = Buffer.from([0x0a, 0xff, 0x01]);

let bundles = 0;
function bundle(config?: string): string {
  const path = join(folder, `bundle-${++bundles}`);
  mkdirSync(join(path, 'rootfs'), { recursive: true });
  if (config !== undefined) writeFileSync(join(path, 'config.json'), config);
  return path;
}

const SPEC = JSON.stringify(defaultSpec(['/bin/true']));

const create = (change: Partial<CreateTaskRequest>) =>
  tasks.create({
    ...{ id: uniqueName('hostile'), bundle: bundle(SPEC), rootfs: [], terminal: false },
    ...{ stdin: '', stdout: '', stderr: '', checkpoint: '', parentCheckpoint: '', options: undefined },
    ...change,
  });

test('a Create of nonsense is an invalid argument, and leaves nothing', async () => {
  const calls = {
    ...Object.fromEntries(
      ['', '.', '..', '../up', 'a/b', '/abs', 'a\0b', 'a\nb', '-flag', 'ü', 'x'.repeat(5000)].map((id) => [
        `id ${JSON.stringify(id.slice(0, 10))}`,
        () => create({ id }),
      ]),
    ),
    'options of another type': () => create({ options: any('some.other.Options', '') }),
    'options that are cut': () => create({ options: any(RUNC, CUT) }),
    'generic options that are cut': () => create({ options: any('runtimeoptions.v1.Options', CUT) }),
    'no bundle': () => create({ bundle: '' }),
    'a relative bundle': () => create({ bundle: 'rootfs' }),
    'a bundle that is not there': () => create({ bundle: join(folder, 'nowhere') }),
    'a bundle without a specification': () => create({ bundle: bundle() }),
    'a specification that is no JSON': () => create({ bundle: bundle('{') }),
    'a specification that is null': () => create({ bundle: bundle('null') }),
    'a specification of wrong types': () => create({ bundle: bundle('{"linux":{"namespaces":1}}') }),
    'an output that is no address': () => create({ stdout: 'no/such' }),
    'an output of an unknown kind': () => create({ stdout: 'gopher://x/y' }),
    'an output with half an escape': () => create({ stdout: 'file:///%f' }),
  };
  const before = readdirSync(join(runDir, 'tasks/default'));
  assert.deepEqual(await codes(calls), all(calls, Code.InvalidArgument));
  assert.deepEqual(readdirSync(join(runDir, 'tasks/default')), before);
  await unharmed();
});

test('no mount goes outside of the bundle, whatever target it names and whatever links the image has', async () => {
  const outside = join(folder, 'outside');
  mkdirSync(outside);
  const place = bundle(SPEC);
  const image = join(folder, 'image');
  mkdirSync(image);
  symlinkSync(outside, join(image, 'link'));
  const root = { type: 'bind', source: image, target: '', options: ['rbind', 'rw'] };
  const second = (target: string) => ({ type: 'tmpfs', source: 'tmpfs', target, options: [] });
  for (const target of ['..', '../../outside', '/../../outside', 'link', 'link/../../outside']) {
    const made = create({ bundle: place, rootfs: [root, second(target)] });
    await assert.rejects(made, (error) => codeOf(error) === Code.InvalidArgument, target);
  }
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8');
  assert.ok(!mounts.includes(outside) && !mounts.includes(place), 'nothing stays mounted');
  await unharmed();
});

test('nonsense for a container that is there is refused by its code', async () => {
  const id = victim;
  const exec = (execId: string, spec = any('x', '{"args":["true"]}')) =>
    tasks.exec({ id, execId, terminal: false, stdin: '', stdout: '', stderr: '', spec });
  const checkpoint = (path: string, options = any('', '')) => tasks.checkpoint({ id, path, options });
  const CHECKPOINT = 'containerd.runc.v1.CheckpointOptions';
  const invalid = {
    'an exec id that is a path': () => exec('../../init'),
    'no exec id': () => exec(''),
    'an exec of no JSON': () => exec('e1', any('x', '{')),
    'an exec of a list': () => exec('e1', any('x', '[]')),
    'limits of no JSON': () => tasks.update({ id, resources: any('x', 'many'), annotations: {} }),
    'no limits': () => tasks.update({ id, resources: undefined, annotations: {} }),
    'a checkpoint to nowhere': () => checkpoint(''),
    'a checkpoint to a relative folder': () => checkpoint('images'),
    'a checkpoint with options of another type': () => checkpoint(join(folder, 'c'), any('x.Y', '')),
    'a checkpoint with options that are cut': () => checkpoint(join(folder, 'c'), any(CHECKPOINT, CUT)),
  };
  assert.deepEqual(await codes(invalid), all(invalid, Code.InvalidArgument));
  const unknown = {
    state: () => tasks.state({ id: 'none', execId: '' }),
    start: () => tasks.start({ id: 'none', execId: '' }),
    'an exec’s state': () => tasks.state({ id, execId: '../none' }),
    kill: () => tasks.kill({ id, execId: 'none', signal: 9, all: false }),
    stats: () => tasks.stats({ id: '../..' }),
    pids: () => tasks.pids({ id: '' }),
    wait: () => tasks.wait({ id: 'none', execId: '' }),
    delete: () => tasks.delete({ id: 'none', execId: '' }),
  };
  assert.deepEqual(await codes(unknown), all(unknown, Code.NotFound));
  assert.ok(!existsSync(join(folder, 'c')));
  await unharmed();
});

/** Length of the body, stream, type 1 (request), flags. */
function header(length: number, stream: number): Buffer {
  const bytes = Buffer.alloc(10);
  bytes.writeUInt32BE(length, 0);
  bytes.writeUInt32BE(stream, 4);
  bytes.writeUInt8(1, 8);
  return bytes;
}

const residentMegabytes = (): number =>
  Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${shim}/status`, 'utf8'))?.[1]) / 1024;

test('frames that lie about their length, and clients that say nothing, cost neither memory nor service', async (t) => {
  const sockets: Socket[] = [];
  t.after(() => sockets.forEach((socket) => socket.destroy()));
  const raw = async (...pieces: Buffer[]): Promise<void> => {
    const socket = connect(shimSocket(victim).replace(/^unix:\/\//, ''));
    sockets.push(socket);
    socket.on('error', () => undefined); // the shim may close it
    await new Promise((resolve) => socket.once('connect', resolve));
    for (const piece of pieces) socket.write(piece);
  };
  const before = residentMegabytes();
  for (let i = 0; i < 50; i++) {
    await raw();
    await raw(header(0, 1).subarray(0, 7)); // half a header
    await raw(header(4 * 1024 * 1024, 1), Buffer.alloc(100)); // the rest never comes
    await raw(header(0xffff_ffff, 1), Buffer.alloc(100_000)); // more than there may be
    await raw(header(3, 1), Buffer.alloc(64, 0xff)); // less than what follows
    await raw(header(20, 2), Buffer.alloc(20)); // a stream that a client cannot have
  }
  await unharmed();
  await until('memory to stay', () => (residentMegabytes() < before + 60 ? true : undefined));
});
