import assert from 'node:assert/strict';
import test from 'node:test';
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { refuseUnknown } from '../../../shim/container/refused.ts';
import { loadConfig } from '../../../src/config/config.ts';
import { readOptions } from '../../../src/containerd/task-options.ts';
import { InvalidArgument } from '../../../src/errors.ts';
import { Options } from '../../../src/proto/gen/containerd/runc_options.ts';

const config = loadConfig('/nonexistent/config.toml', false);
const socket = '/run/stasis/s/0123';

function create(options: Partial<Options>, parentCheckpoint = ''): void {
  refuseUnknown({ parentCheckpoint }, Options.fromPartial(options), { socket, config });
}

function refused(word: RegExp, options: Partial<Options>, parentCheckpoint?: string): void {
  const isSo = (error: unknown): boolean =>
    error instanceof InvalidArgument && word.test(error.message) && error.subject !== undefined;
  assert.throws(() => create(options, parentCheckpoint), isSo);
}

test('another CRIU than the configured one is refused, with where to name it', () => {
  create({});
  create({ criuPath: config.runtime.criu });
  create({ criuPath: 'criu' });
  refused(/CriuPath = "\/opt\/criu"/, { criuPath: '/opt/criu' });
  assert.throws(() => create({ criuPath: '/opt/criu' }), { remedy: /\[runtime\]/ });
});

test('a task for another task service is refused, one for this shim is not', () => {
  for (const taskApiAddress of [socket, `unix://${socket}`, `ttrpc+unix://${socket}`])
    create({ taskApiAddress, taskApiVersion: 3 });
  refused(/made by unix:\/\/\/run\/sandbox/, { taskApiAddress: 'unix:///run/sandbox', taskApiVersion: 3 });
  create({ taskApiVersion: 2 });
  refused(/version 4 /, { taskApiVersion: 4 });
});

test('a parent of a checkpoint is refused', () => {
  refused(/parent checkpoint/, {}, '/images/before');
});

test('the field numbers are those of containerd’s definition', async () => {
  const writer = new BinaryWriter();
  writer.tag(8, WireType.LengthDelimited).string('/opt/criu');
  writer.tag(12, WireType.LengthDelimited).string('unix:///run/sandbox');
  writer.tag(13, WireType.Varint).uint32(3);
  const value = Buffer.from(writer.finish());
  const { criuPath, taskApiAddress, taskApiVersion } = await readOptions({
    typeUrl: 'containerd.runc.v1.Options',
    value,
  });
  assert.deepEqual([criuPath, taskApiAddress, taskApiVersion], ['/opt/criu', 'unix:///run/sandbox', 3]);
});

test('old options that a restore does not follow are refused, those that every restore has are not', async () => {
  const read = (write: (writer: BinaryWriter) => BinaryWriter): Promise<Options> =>
    readOptions({
      typeUrl: 'containerd.linux.runc.CreateOptions',
      value: Buffer.from(write(new BinaryWriter()).finish()),
    });
  for (const field of [2, 3, 4, 5]) await read((writer) => writer.tag(field, WireType.Varint).bool(true));
  await read((writer) => writer.tag(7, WireType.LengthDelimited).string('soft'));
  await assert.rejects(
    read((writer) => writer.tag(7, WireType.LengthDelimited).string('strict')),
    { name: 'InvalidArgument', message: /cgroups_mode strict/ },
  );
  await assert.rejects(
    read((writer) => writer.tag(6, WireType.LengthDelimited).string('network')),
    { name: 'InvalidArgument', message: /empty_namespaces network/ },
  );
  const paths = await read((writer) => writer.tag(12, WireType.LengthDelimited).string('/work'));
  assert.equal(paths.criuWorkPath, '/work');
});
