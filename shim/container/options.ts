import { InvalidArgument, messageOf } from '../../src/errors.ts';
import { CheckpointOptions, Options } from '../../src/proto/gen/containerd/runc_options.ts';
import type { Any } from '../../src/proto/gen/google/protobuf/any.ts';
import type { MessageType } from '../../ttrpc/index.ts';

/**
 * Reads the options that a client gave for the task.
 * @throws InvalidArgument for options of another runtime, or bytes that are none
 */
export function readOptions(any: Any | undefined): Options {
  return read(any, 'containerd.runc.v1.Options', Options);
}

/** The same for Checkpoint; none means: leave the task running. */
export function readCheckpointOptions(any: Any | undefined): CheckpointOptions {
  return read(any, 'containerd.runc.v1.CheckpointOptions', CheckpointOptions);
}

function read<T>(any: Any | undefined, name: string, type: MessageType<T>): T {
  if (any === undefined || (any.typeUrl === '' && any.value.length === 0))
    return type.decode(new Uint8Array());
  // Type URLs are bare names; a host before the name is legal and means nothing.
  if (any.typeUrl.slice(any.typeUrl.lastIndexOf('/') + 1) !== name) {
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
