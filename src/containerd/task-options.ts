import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { BinaryReader } from '@bufbuild/protobuf/wire';
import { parse } from 'smol-toml';
import { InvalidArgument, messageOf } from '../errors.ts';
import {
  CheckpointOptions as OldCheckpointOptions,
  CreateOptions,
} from '../proto/gen/containerd/linux_runc_options.ts';
import { CheckpointOptions, Options } from '../proto/gen/containerd/runc_options.ts';
import { onDisk } from '../sys/thread-pool.ts';
import type { Any } from '../proto/gen/google/protobuf/any.ts';
import type { MessageType } from '../../ttrpc/index.ts';

const OPTIONS = 'containerd.runc.v1.Options';
/** What the CRI, and `ctr run --runtime-config-path`, send to runtimes other than runc: a file, or its content. */
const GENERIC_OPTIONS = 'runtimeoptions.v1.Options';
const CHECKPOINT_OPTIONS = 'containerd.runc.v1.CheckpointOptions';
/** What clients up to 1.7 send to runtimes of another name than runc's: linux_runc_options.proto. */
const OLD_OPTIONS = 'containerd.linux.runc.CreateOptions';
const OLD_CHECKPOINT_OPTIONS = 'containerd.linux.runc.CheckpointOptions';

/**
 * Reads the options that a client gave for the task.
 * @throws InvalidArgument for options of another runtime, or bytes that are none
 */
export async function readOptions(any: Any | undefined): Promise<Options> {
  switch (nameOf(any)) {
    case GENERIC_OPTIONS:
      return readGeneric(any);
    case OLD_OPTIONS:
      return fromOld(read(any, OLD_OPTIONS, CreateOptions));
    default:
      return read(any, OPTIONS, Options);
  }
}

/** What they say of open connections, locks and terminals is so for every restore; what else CRIU could be told is not known here. */
function fromOld(old: CreateOptions): Options {
  const { emptyNamespaces, cgroupsMode } = old;
  if (emptyNamespaces.length > 0 || !['', 'soft'].includes(cgroupsMode)) {
    const what =
      emptyNamespaces.length > 0
        ? `empty_namespaces ${emptyNamespaces.join(', ')}`
        : `cgroups_mode ${cgroupsMode}`;
    throw new InvalidArgument(`${what} cannot be followed by a restore`, {
      subject: what,
      remedy: 'leave it out',
    });
  }
  return Options.fromPartial(old);
}

/** Whether these are options of a task, in one of their forms. */
export function isOptions(any: Any): boolean {
  return [OPTIONS, GENERIC_OPTIONS, OLD_OPTIONS].includes(nameOf(any));
}

/** Reads the options of a Checkpoint; none mean: leave the task running. */
export function readCheckpointOptions(any: Any | undefined): CheckpointOptions {
  if (nameOf(any) !== OLD_CHECKPOINT_OPTIONS) return read(any, CHECKPOINT_OPTIONS, CheckpointOptions);
  return CheckpointOptions.fromPartial(read(any, OLD_CHECKPOINT_OPTIONS, OldCheckpointOptions));
}

/** Type URLs are bare names; a host before the name is legal and means nothing. */
function nameOf(any: Any | undefined): string {
  return any === undefined ? '' : any.typeUrl.slice(any.typeUrl.lastIndexOf('/') + 1);
}

function read<T>(any: Any | undefined, name: string, type: MessageType<T>): T {
  if (any === undefined || (any.typeUrl === '' && any.value.length === 0))
    return type.decode(new Uint8Array());
  if (nameOf(any) !== name) {
    throw new InvalidArgument(
      `options of type ${JSON.stringify(any.typeUrl)} are not understood, only ${name}`,
      {
        subject: any.typeUrl,
      },
    );
  }
  try {
    return type.decode(any.value);
  } catch (error) {
    throw new InvalidArgument(`malformed ${name}: ${messageOf(error)}`, { cause: error });
  }
}

/** Field numbers of runtimeoptions.v1.Options. */
const CONFIG_PATH = 2;
const CONFIG_BODY = 3;

/** The options as TOML, with the keys that containerd's own configuration has for runc: `BinaryName`, `SystemdCgroup`. */
async function readGeneric(any: Any | undefined): Promise<Options> {
  let path = '';
  let body: Uint8Array = new Uint8Array();
  try {
    const reader = new BinaryReader(any?.value ?? new Uint8Array());
    while (reader.pos < reader.len) {
      const [field, wire] = reader.tag();
      if (field === CONFIG_PATH) path = reader.string();
      else if (field === CONFIG_BODY) body = reader.bytes();
      else reader.skip(wire);
    }
    if (path !== '') body = await onDisk(() => readConfigFile(path));
    return fromToml(Buffer.from(body).toString('utf8'));
  } catch (error) {
    throw new InvalidArgument(`runtime options${path === '' ? '' : ` in ${path}`}: ${messageOf(error)}`, {
      cause: error,
      ...(path === '' ? {} : { subject: path }),
    });
  }
}

const MAX_CONFIG_BYTES = 1 << 20;

/** Never waits for a writer, which a FIFO in its place would have a thread do for ever. */
async function readConfigFile(path: string): Promise<Uint8Array> {
  await using file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const stat = await file.stat();
  if (!stat.isFile()) throw new Error('it is no file');
  if (stat.size > MAX_CONFIG_BYTES) throw new Error(`it is larger than ${MAX_CONFIG_BYTES} bytes`);
  return file.readFile();
}

function fromToml(text: string): Options {
  const options = Options.decode(new Uint8Array());
  const known = new Map(Object.keys(options).map((key) => [key.toLowerCase(), key]));
  const target = options as unknown as Record<string, unknown>;
  for (const [key, value] of Object.entries(parse(text))) {
    const name = known.get(key.toLowerCase());
    if (name === undefined || typeof value !== typeof target[name]) {
      throw new InvalidArgument(`${key} = ${JSON.stringify(value)} is not understood`, { subject: key });
    }
    target[name] = value;
  }
  return options;
}

/**
 * The JSON inside an Any, which OCI's own types travel as.
 * @throws InvalidArgument when it is no JSON object
 */
export function readJson(any: Any | undefined, what: string): Record<string, unknown> {
  const text = Buffer.from(any?.value ?? new Uint8Array()).toString('utf8');
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new InvalidArgument(`${what} is not valid JSON: ${messageOf(error)}`, { cause: error });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new InvalidArgument(`${what} is not a JSON object`);
  }
  return value as Record<string, unknown>;
}
