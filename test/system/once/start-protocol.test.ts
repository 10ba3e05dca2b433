// What the program itself is asked, in the forms of all containerds: `start` and `-info`.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { BinaryReader, BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { Options } from '../../../src/proto/gen/containerd/runc_options.ts';
import { TaskDefinition } from '../../../src/proto/gen/containerd/task.ts';
import { Any } from '../../../src/proto/gen/google/protobuf/any.ts';
import { Client } from '../../../ttrpc/index.ts';
import { stack, until } from '../support/stack.ts';

const program = join(stack.project, 'dist/containerd-shim-stasis-v2');
// Short, as sockets are in it.
const folder = mkdtempSync(join(tmpdir(), 'start-'));
const config = join(folder, 'config.toml');
writeFileSync(config, `[daemon]\nrun_dir = "${folder}/run"\n[shim]\nsharing = "container"\n`);
after(() => rmSync(folder, { recursive: true }));

interface Answer {
  readonly stdout: Buffer;
  readonly stderr: string;
  readonly status: number | null;
}

async function ask(args: string[], stdin: Uint8Array, cwd = folder, env = {}): Promise<Answer> {
  const child = spawn(program, args, { cwd, env: { ...process.env, STASIS_CONFIG: config, ...env } });
  const [stdout, stderr]: [Buffer[], Buffer[]] = [[], []];
  child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
  child.stdin.on('error', () => undefined); // it may not want it
  child.stdin.end(stdin);
  const status = await new Promise<number | null>((resolve) => child.once('close', resolve));
  return { stdout: Buffer.concat(stdout), stderr: Buffer.concat(stderr).toString(), status };
}

const optionsOf = (options: Partial<Options>): Any => ({
  typeUrl: 'containerd.runc.v1.Options',
  value: Buffer.from(Options.encode(Options.fromPartial(options)).finish()),
});

/** As containerd writes it from 2.3 on. */
function bootstrap(id: string, options: Any | undefined): Uint8Array {
  const writer = new BinaryWriter();
  for (const [field, text] of [
    [1, id],
    [2, 'default'],
    [4, 'v2.4.0'],
    [5, '/nowhere.ttrpc'],
    [6, '/nowhere.sock'],
    [7, '/bin/true'],
  ] as const)
    writer.tag(field, WireType.LengthDelimited).string(text);
  if (options !== undefined) {
    const extension = new BinaryWriter().tag(1, WireType.LengthDelimited).bytes(Any.encode(options).finish());
    writer.tag(8, WireType.LengthDelimited).bytes(extension.finish());
  }
  return writer.finish();
}

let bundles = 0;
async function start(stdin: (id: string) => Uint8Array): Promise<Answer & { bundle: string; id: string }> {
  const id = `start-${++bundles}`;
  const bundle = join(folder, id);
  mkdirSync(bundle);
  const args = ['-namespace', 'default', '-address', '/nowhere.sock', '-publish-binary', '/bin/true'];
  return { ...(await ask([...args, '-id', id, 'start'], stdin(id), bundle)), bundle, id };
}

const forms: Record<string, (options: Any | undefined) => (id: string) => Uint8Array> = {
  'the parameters of containerd 2.3 and later': (options) => (id) => bootstrap(id, options),
  'the options alone, as before': (options) => () =>
    options === undefined ? new Uint8Array() : Any.encode(options).finish(),
};

for (const [form, stdin] of Object.entries(forms)) {
  test(`start by ${form} answers with a plain address where somebody listens, and writes it down`, async () => {
    for (const options of [undefined, optionsOf({ systemdCgroup: true })]) {
      const { stdout, stderr, status, bundle, id } = await start(stdin(options));
      assert.deepEqual([stderr, status], ['', 0]);
      const address = stdout.toString();
      assert.match(address, /^unix:\/\/\/\S+$/, 'every containerd reads that');
      assert.equal(readFileSync(join(bundle, 'address'), 'utf8'), address);
      const client = await Client.connect(address);
      const tasks = client.service(TaskDefinition);
      await assert.rejects(tasks.state({ id, execId: '' }), /not found/);
      await tasks.shutdown({ id, now: false });
      client.close();
      const socket = address.replace('unix://', '');
      await until('its socket to go with it', () => (existsSync(socket) ? undefined : true));
    }
  });

  test(`start by ${form} follows the options: a cgroup that is not there is told, and nothing else is`, async () => {
    const { stdout, stderr, status } = await start(stdin(optionsOf({ shimCgroup: '/no/such' })));
    assert.deepEqual([stdout.length, status], [0, 1]);
    assert.match(stderr, /there is no cgroup \/no\/such/);
  });
}

/** containerd.types.runtime.RuntimeInfo, of which three fields are read. */
function runtimeInfo(bytes: Uint8Array): {
  name: string;
  options: Any | undefined;
  features: Any | undefined;
} {
  const info: { name: string; options: Any | undefined; features: Any | undefined } = {
    ...{ name: '', options: undefined, features: undefined },
  };
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [field, wire] = reader.tag();
    if (field === 1) info.name = reader.string();
    else if (field === 3) info.options = Any.decode(reader.bytes());
    else if (field === 4) info.features = Any.decode(reader.bytes());
    else reader.skip(wire);
  }
  return info;
}

const FEATURES = 'types.containerd.io/opencontainers/runtime-spec/1/features/Features';

for (const binary of [process.env['STASIS_RUNC_NEW'], process.env['STASIS_CRUN']]) {
  test(`-info has the features of the runtime that the options name: ${binary}`, async () => {
    const options = optionsOf({ binaryName: binary ?? '' });
    const { stdout, stderr, status } = await ask(['-info'], Any.encode(options).finish());
    assert.deepEqual([stderr, status], ['', 0]);
    const info = runtimeInfo(stdout);
    assert.equal(info.name, 'io.containerd.stasis.v2');
    assert.deepEqual(info.options, options);
    assert.equal(info.features?.typeUrl, FEATURES);
    const features = JSON.parse(info.features.value.toString('utf8')) as {
      linux?: { namespaces?: string[]; cgroup?: { v1?: boolean } };
    };
    // Of these containerd makes user namespaces and idmapped mounts available.
    assert.ok(features.linux?.namespaces?.includes('user'));
  });
}

test('-info without options is of the configured runtime, and a flag after it changes nothing', async () => {
  const plain = await ask(['-info'], new Uint8Array());
  assert.equal(plain.status, 0);
  assert.equal(runtimeInfo(plain.stdout).options, undefined);
  const long = await ask(['--info', '-debug'], new Uint8Array());
  assert.deepEqual(long.stdout, plain.stdout);
});

test('-info fails aloud for options of another runtime, and for a runtime that is not there', async () => {
  const foreign = await ask(
    ['-info'],
    Any.encode({ typeUrl: 'some.Other', value: Buffer.alloc(0) }).finish(),
  );
  assert.deepEqual([foreign.stdout.length, foreign.status], [0, 1]);
  assert.match(foreign.stderr, /some\.Other/);
  const missing = await ask(['-info'], Any.encode(optionsOf({ binaryName: '/no/such/runc' })).finish());
  assert.deepEqual([missing.stdout.length, missing.status], [0, 1]);
  assert.match(missing.stderr, /"\/no\/such\/runc"/);
});
