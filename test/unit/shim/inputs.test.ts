import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { parseArguments } from '../../../shim/arguments.ts';
import {
  isOptions,
  readCheckpointOptions,
  readJson,
  readOptions,
} from '../../../src/containerd/task-options.ts';
import { cgroupOf, isSystemdPath, readSpec } from '../../../shim/container/spec.ts';
import { asPrintfFormat } from '../../../shim/lifecycle/answer.ts';
import { readBootstrap } from '../../../shim/lifecycle/bootstrap.ts';
import { checkName, Paths } from '../../../shim/paths.ts';
import { asClientsKnow } from '../../../shim/service/errors.ts';
import { parseOutputAddress } from '../../../shim/stdio/address.ts';
import { Code, codeOf, InvalidArgument, messageOf, NotFound } from '../../../src/errors.ts';
import { Options } from '../../../src/proto/gen/containerd/runc_options.ts';
import { Any } from '../../../src/proto/gen/google/protobuf/any.ts';

const any = (typeUrl: string, value: Uint8Array) => ({ typeUrl, value: Buffer.from(value) });

test('flags come in all of Go’s spellings, and end at the action', () => {
  const args = parseArguments(['-namespace', 'n', '--id=i', '-address=/a=b', '-debug', 'start', '-id', 'x']);
  assert.deepEqual(
    [args.namespace, args.id, args.address, args.debug, args.action],
    ['n', 'i', '/a=b', true, 'start'],
  );
  assert.equal(parseArguments(['-debug=false', 'delete']).debug, false);
  assert.throws(() => parseArguments(['-nonsense', 'start']), /flag provided but not defined: -nonsense/);
  assert.throws(() => parseArguments(['-id']), /flag needs an argument: -id/);
});

test('output addresses', () => {
  assert.deepEqual(parseOutputAddress(''), { kind: 'none' });
  assert.deepEqual(parseOutputAddress('/run/x y'), { kind: 'path', path: '/run/x y' });
  assert.deepEqual(parseOutputAddress('fifo:///f'), { kind: 'path', path: '/f' });
  assert.deepEqual(parseOutputAddress('file:///var/log/a%20b'), { kind: 'file', path: '/var/log/a b' });
  assert.deepEqual(parseOutputAddress('binary:///bin/log?k=v&flag&k=w'), {
    kind: 'program',
    path: '/bin/log',
    args: ['k', 'v', 'flag', ''],
  });
  assert.throws(() => parseOutputAddress('relative'), /not an absolute path/);
  assert.throws(() => parseOutputAddress('http://host/x'), /unknown STDIO scheme http/);
  assert.throws(() => parseOutputAddress('file:///%zz'), InvalidArgument);
});

test('options of old clients, which number the fields otherwise', async () => {
  const create = new BinaryWriter();
  create.tag(1, WireType.Varint).bool(true);
  create.tag(8, WireType.Varint).bool(true);
  create.tag(9, WireType.LengthDelimited).string('/shim');
  create.tag(10, WireType.Varint).uint32(100_000);
  create.tag(11, WireType.Varint).uint32(200_000);
  create.tag(13, WireType.LengthDelimited).string('/image');
  assert.partialDeepStrictEqual(
    await readOptions(any('containerd.linux.runc.CreateOptions', create.finish())),
    {
      ...{ noPivotRoot: true, noNewKeyring: true, shimCgroup: '/shim', ioUid: 100_000, ioGid: 200_000 },
      ...{ criuImagePath: '/image', binaryName: '', systemdCgroup: false },
    },
  );
  const checkpoint = new BinaryWriter();
  checkpoint.tag(1, WireType.Varint).bool(true);
  checkpoint.tag(8, WireType.LengthDelimited).string('/work');
  checkpoint.tag(9, WireType.LengthDelimited).string('/image');
  assert.partialDeepStrictEqual(
    readCheckpointOptions(any('containerd.linux.runc.CheckpointOptions', checkpoint.finish())),
    { exit: true, workPath: '/work', imagePath: '/image', openTcp: false },
  );
});

test('options: bare and full type URLs, none, the generic kind, and nothing else', async () => {
  const options = Options.encode({ ...Options.decode(new Uint8Array()), binaryName: 'crun' }).finish();
  assert.equal((await readOptions(any('containerd.runc.v1.Options', options))).binaryName, 'crun');
  assert.equal(
    (await readOptions(any('type.googleapis.com/containerd.runc.v1.Options', options))).binaryName,
    'crun',
  );
  assert.equal((await readOptions(undefined)).binaryName, '');
  const toml = new BinaryWriter()
    .tag(3, WireType.LengthDelimited)
    .string('BinaryName = "crun"\nSystemdCgroup = true');
  const generic = await readOptions(any('runtimeoptions.v1.Options', toml.finish()));
  assert.deepEqual([generic.binaryName, generic.systemdCgroup], ['crun', true]);
  await assert.rejects(readOptions(any('some.other.Options', options)), /some\.other\.Options/);
  await assert.rejects(
    readOptions(any('containerd.runc.v1.Options', Buffer.from([0x0a, 0xff]))),
    /malformed/,
  );
  const wrong = new BinaryWriter().tag(3, WireType.LengthDelimited).string('NoSuchKey = 1').finish();
  await assert.rejects(readOptions(any('runtimeoptions.v1.Options', wrong)), /NoSuchKey/);
  assert.equal(readCheckpointOptions(undefined).exit, false);
});

test('options in a file, which is read without waiting for anybody', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'options-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const inFile = (path: string) =>
    readOptions(
      any(
        'runtimeoptions.v1.Options',
        new BinaryWriter().tag(2, WireType.LengthDelimited).string(path).finish(),
      ),
    );
  const file = join(folder, 'options.toml');
  writeFileSync(file, 'BinaryName = "crun"');
  assert.equal((await inFile(file)).binaryName, 'crun');
  const fifo = join(folder, 'fifo');
  execFileSync('mkfifo', [fifo]);
  await assert.rejects(inFile(fifo), { message: `runtime options in ${fifo}: it is no file` });
  await assert.rejects(inFile(folder), /EISDIR|it is no file/);
  writeFileSync(file, Buffer.alloc((1 << 20) + 1, ' '));
  await assert.rejects(inFile(file), /larger than 1048576 bytes/);
});

test('JSON that is none is an invalid argument', () => {
  assert.deepEqual(readJson(any('x', Buffer.from('{"a":1}')), 'spec'), { a: 1 });
  for (const text of ['', '[]', 'null', '{']) {
    assert.throws(
      () => readJson(any('x', Buffer.from(text)), 'spec'),
      (error) => codeOf(error) === Code.InvalidArgument,
    );
  }
});

test('start parameters are taken for such only when they repeat id and namespace', () => {
  const bytes = new BinaryWriter()
    .tag(1, WireType.LengthDelimited)
    .string('web')
    .tag(2, WireType.LengthDelimited)
    .string('default')
    .tag(5, WireType.LengthDelimited)
    .string('/c.ttrpc')
    .finish();
  assert.equal(readBootstrap(bytes, 'web', 'default')?.ttrpcAddress, '/c.ttrpc');
  assert.equal(readBootstrap(bytes, 'other', 'default'), undefined);
  assert.equal(readBootstrap(Buffer.from([0xff, 0xff, 0xff]), 'web', 'default'), undefined);
  assert.equal(readBootstrap(Buffer.alloc(0), 'web', 'default'), undefined);
});

test('parameters of containerd 2.3: every field, options in an extension, and fields that are yet to come', async () => {
  const options = new BinaryWriter().tag(3, WireType.LengthDelimited).string('/shims').finish();
  const wrapped = new BinaryWriter();
  wrapped
    .tag(1, WireType.LengthDelimited)
    .fork()
    .tag(1, WireType.LengthDelimited)
    .string('containerd.runc.v1.Options')
    .tag(2, WireType.LengthDelimited)
    .bytes(options)
    .join();
  const text = (writer: BinaryWriter, field: number, value: string): BinaryWriter =>
    writer.tag(field, WireType.LengthDelimited).string(value);
  const writer = new BinaryWriter();
  text(writer, 1, 'web');
  text(writer, 2, 'default');
  writer.tag(3, WireType.Varint).int32(-4);
  text(writer, 4, 'v2.4.0');
  text(writer, 5, '/c.ttrpc');
  text(writer, 6, '/c.sock');
  text(writer, 7, '/usr/bin/containerd');
  writer.tag(8, WireType.LengthDelimited).bytes(wrapped.finish());
  writer.tag(8, WireType.LengthDelimited).bytes(new Uint8Array()); // one of a kind that is not known
  text(writer, 9, '/run/containerd/s');
  writer.tag(10, WireType.Bit64).fixed64(7);
  text(writer, 99, 'later');
  const params = readBootstrap(writer.finish(), 'web', 'default');
  assert.partialDeepStrictEqual(params, {
    ...{ instanceId: 'web', namespace: 'default', logLevel: -4 },
    ...{ ttrpcAddress: '/c.ttrpc', grpcAddress: '/c.sock', binary: '/usr/bin/containerd' },
  });
  assert.equal(params?.extensions.length, 2);
  const [first, second] = params.extensions;
  assert.ok(first !== undefined && second !== undefined && isOptions(first) && !isOptions(second));
  assert.equal((await readOptions(first)).shimCgroup, '/shims');
});

test('an Any of an older containerd is never taken for parameters, nor cut ones for anything', () => {
  const bare = any(
    'containerd.runc.v1.Options',
    Options.encode(Options.fromPartial({ root: '/r' })).finish(),
  );
  const bytes = Any.encode(bare).finish();
  assert.equal(readBootstrap(bytes, 'web', 'default'), undefined);
  const whole = new BinaryWriter()
    .tag(1, WireType.LengthDelimited)
    .string('web')
    .tag(2, WireType.LengthDelimited)
    .string('default')
    .tag(8, WireType.LengthDelimited)
    .bytes(new BinaryWriter().tag(1, WireType.LengthDelimited).bytes(bytes).finish())
    .finish();
  assert.equal(readBootstrap(whole, 'web', 'default')?.extensions.length, 1);
  for (let length = 0; length < whole.length; length++) {
    const cut = readBootstrap(whole.subarray(0, length), 'web', 'default');
    if (cut !== undefined) assert.deepEqual(cut.extensions, [], `${length} bytes`);
  }
});

test('names that are no identifiers never become paths', () => {
  for (const name of ['', '..', '.', 'a/b', '../x', 'a b', '-a', 'a\n', 'ü', 'a'.repeat(256)]) {
    assert.throws(() => checkName('id', name), /not a valid identifier/, JSON.stringify(name));
    const paths = new Paths('/run/stasis');
    for (const path of [
      () => paths.task('default', name),
      () => paths.tasks(name),
      () => paths.ociRoot(name),
      () => paths.resident('/c.sock', name),
    ]) {
      assert.throws(path, InvalidArgument, JSON.stringify(name));
    }
  }
  for (const name of ['a', 'a-b_c.d', 'k8s.io', 'a'.repeat(76)]) assert.equal(checkName('id', name), name);
});

test('a socket fits, whatever the names, and two containerds do not share one', () => {
  const paths = new Paths('/run/stasis');
  const long = paths.socket('/x'.repeat(200), 'n'.repeat(76), 'i'.repeat(76));
  assert.ok(Buffer.byteLength(long) <= 106);
  assert.notEqual(paths.socket('/a', 'n', ''), paths.socket('/b', 'n', ''));
  assert.notEqual(paths.socket('/a', 'n', 'x'), paths.socket('/a', 'nx', ''));
  assert.throws(() => new Paths(`/${'d'.repeat(100)}`).socket('/a', 'n', ''), /longer than 106 bytes/);
});

test('a specification that is none is an invalid argument', (t) => {
  const bundle = mkdtempSync(join(tmpdir(), 'bundle-'));
  t.after(() => rmSync(bundle, { recursive: true }));
  assert.throws(() => readSpec(bundle), InvalidArgument, 'missing');
  for (const text of [
    ...['', '{', 'null', '{"linux":{"cgroupsPath":7}}', '{"linux":{"namespaces":{}}}'],
    '{"process":{"rlimits":"many"}}',
  ]) {
    writeFileSync(join(bundle, 'config.json'), text);
    assert.throws(() => readSpec(bundle), InvalidArgument, text);
  }
  writeFileSync(join(bundle, 'config.json'), '{}');
  assert.equal(readSpec(bundle).sharesPids, true);
  for (const place of ['', '.', `..${bundle}`]) assert.throws(() => readSpec(place), /absolute path/);
});

test('systemd cgroup paths are told from others', () => {
  assert.ok(isSystemdPath('system.slice:nerdctl:abc'));
  assert.ok(!isSystemdPath('/default/web'));
  assert.ok(!isSystemdPath('/a:b:c'));
});

test('cgroup paths lead where the runtimes make them', () => {
  assert.equal(cgroupOf('/default/web'), '/default/web');
  assert.equal(cgroupOf('system.slice:nerdctl:abc'), '/system.slice/nerdctl-abc.scope');
  assert.equal(cgroupOf(':cri:abc'), '/system.slice/cri-abc.scope');
  assert.equal(cgroupOf('a-b.slice::abc'), '/a.slice/a-b.slice/abc.scope');
  assert.equal(cgroupOf('web'), undefined);
});

test('every byte survives the way through printf', () => {
  assert.equal(asPrintfFormat(Uint8Array.of(0, 10, 37, 92, 255)), '\\000\\012\\045\\134\\377');
});

test('messages end in the words of their code, once', () => {
  assert.equal(messageOf(asClientsKnow(new NotFound('process x'))), 'process x: not found');
  assert.equal(messageOf(asClientsKnow(new NotFound('x: not found'))), 'x: not found');
  assert.equal(messageOf(asClientsKnow(new Error('plain'))), 'plain');
});
