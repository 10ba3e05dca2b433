import { BinaryReader, WireType } from '@bufbuild/protobuf/wire';
import { Any } from '../../src/proto/gen/google/protobuf/any.ts';

/** What containerd from 2.3 on writes to the standard input of `start` (api/runtime/bootstrap/v1). */
export interface BootstrapParams {
  readonly instanceId: string;
  readonly namespace: string;
  /** As Go's slog has it: DEBUG is -4, INFO 0. */
  readonly logLevel: number;
  readonly ttrpcAddress: string;
  readonly grpcAddress: string;
  readonly binary: string;
  /** The runtime's options are among them. */
  readonly extensions: readonly Any[];
}

/** Field numbers of those that are strings. */
const texts = new Map<number, 'instanceId' | 'namespace' | 'ttrpcAddress' | 'grpcAddress' | 'binary'>([
  [1, 'instanceId'],
  [2, 'namespace'],
  [5, 'ttrpcAddress'],
  [6, 'grpcAddress'],
  [7, 'binary'],
]);
const LOG_LEVEL = 3;
const EXTENSION = 8;

/**
 * Reads BootstrapParams. Older versions write an Any, or nothing, and each parses as the other: only what repeats the
 * id and namespace of the command line is taken for BootstrapParams.
 * @returns undefined for anything else
 */
export function readBootstrap(bytes: Uint8Array, id: string, namespace: string): BootstrapParams | undefined {
  const params = { instanceId: '', namespace: '', ttrpcAddress: '', grpcAddress: '', binary: '' };
  const extensions: Any[] = [];
  let logLevel = 0;
  try {
    const reader = new BinaryReader(bytes);
    while (reader.pos < reader.len) {
      const [field, wire] = reader.tag();
      const text = texts.get(field);
      if (wire === WireType.LengthDelimited && text !== undefined) params[text] = reader.string();
      else if (wire === WireType.LengthDelimited && field === EXTENSION)
        extensions.push(readExtension(reader.bytes()));
      else if (wire === WireType.Varint && field === LOG_LEVEL) logLevel = reader.int32();
      else reader.skip(wire);
    }
  } catch {
    return undefined;
  }
  if (params.instanceId !== id || params.namespace !== namespace) return undefined;
  return { ...params, logLevel, extensions };
}

/** Each extension wraps an Any in its field 1. */
function readExtension(bytes: Uint8Array): Any {
  const reader = new BinaryReader(bytes);
  let any = Any.decode(new Uint8Array());
  while (reader.pos < reader.len) {
    const [field, wire] = reader.tag();
    if (field === 1 && wire === WireType.LengthDelimited) any = Any.decode(reader.bytes());
    else reader.skip(wire);
  }
  return any;
}
