import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import type { Config } from '../../src/config/config.ts';
import { detectRuntime } from '../../src/oci/binary.ts';
import { openRuntime } from '../../src/oci/runtime.ts';
import { Any } from '../../src/proto/gen/google/protobuf/any.ts';
import { exec } from '../../src/sys/command.ts';
import { commit, version } from '../../src/version.ts';
import { readOptions } from '../../src/containerd/task-options.ts';

const NAME = 'io.containerd.stasis.v2';
const FEATURES_URL = 'types.containerd.io/opencontainers/runtime-spec/1/features/Features';

/**
 * Answers `-info`: containerd.types.runtime.RuntimeInfo, encoded (containerd's api/types/introspection.proto). From the
 * features containerd learns whether user namespaces and recursive read-only mounts can be offered.
 * @param stdin the runtime options as an Any, or nothing
 */
export async function runtimeInfo(stdin: Uint8Array, config: Config): Promise<Uint8Array> {
  const options = stdin.length === 0 ? undefined : Any.decode(stdin);
  const { binaryName } = await readOptions(options);
  const features = await featuresOf(binaryName || config.runtime.oci);
  const writer = new BinaryWriter();
  writer.tag(1, WireType.LengthDelimited).string(NAME);
  writer
    .tag(2, WireType.LengthDelimited)
    .fork()
    .tag(1, WireType.LengthDelimited)
    .string(version)
    .tag(2, WireType.LengthDelimited)
    .string(commit)
    .join();
  if (options !== undefined) writer.tag(3, WireType.LengthDelimited).bytes(Any.encode(options).finish());
  if (features !== undefined) {
    const any = { typeUrl: FEATURES_URL, value: Buffer.from(features) };
    writer.tag(4, WireType.LengthDelimited).bytes(Any.encode(any).finish());
  }
  return writer.finish();
}

/** What the OCI runtime says of itself; undefined for one that is too old for the question. */
async function featuresOf(path: string): Promise<string | undefined> {
  const binary = await detectRuntime(exec, path);
  try {
    return await openRuntime({ exec, binary, bundle: '/' }).features();
  } catch {
    return undefined;
  }
}
