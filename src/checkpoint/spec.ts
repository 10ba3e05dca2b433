import { FailedPrecondition, InvalidArgument, messageOf } from '../errors.ts';
import type { Any } from '../proto/gen/google/protobuf/any.ts';

export const specTypeUrl = 'types.containerd.io/opencontainers/runtime-spec/1/Spec';

/** The part of an OCI runtime spec that Stasis looks at; the rest passes through as it is. */
export interface OciSpec {
  root?: { path?: string; readonly?: boolean };
  process?: { args?: string[]; terminal?: boolean; cwd?: string };
  mounts?: { destination?: string; source?: string; type?: string; options?: string[] }[];
  linux?: {
    cgroupsPath?: string;
    namespaces?: { type: string; path?: string }[];
    [key: string]: unknown;
  };
  [key: string]: unknown;
}

/** @throws InvalidArgument */
export function decodeSpec(spec: Any | undefined, container: string): OciSpec {
  try {
    const parsed: unknown = JSON.parse(Buffer.from(spec?.value ?? new Uint8Array()).toString('utf8'));
    if (typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed)) return parsed as OciSpec;
    throw new Error('not an object');
  } catch (error) {
    throw new InvalidArgument(`the OCI spec of container ${container} cannot be read: ${messageOf(error)}`, {
      subject: container,
      reason: 'bad-spec',
      cause: error,
    });
  }
}

export function encodeSpec(spec: OciSpec): Any {
  return { typeUrl: specTypeUrl, value: Buffer.from(JSON.stringify(spec)) };
}

/**
 * The spec for a copy of a container under another id: the cgroup gets the new id, in both of the forms in
 * which clients write it (`/namespace/id` and systemd's `slice:prefix:id`).
 */
export function specForId(spec: OciSpec, from: string, to: string): OciSpec {
  const path = spec.linux?.cgroupsPath;
  if (path === undefined || from === to) return spec;
  return { ...spec, linux: { ...spec.linux, cgroupsPath: renameLast(path, from, to) } };
}

function renameLast(path: string, from: string, to: string): string {
  const separator = path.includes(':') ? ':' : '/';
  const parts = path.split(separator);
  const last = parts.pop();
  return [...parts, last === from ? to : `${last}-${to}`].join(separator);
}

/**
 * Checks what a spec needs of the host before anything is changed.
 * @throws FailedPrecondition naming the bind mount or namespace that is missing
 */
export function assertSpecFitsHost(
  spec: OciSpec,
  container: string,
  exists: (path: string) => boolean,
): void {
  for (const { type, path } of spec.linux?.namespaces ?? []) {
    if (path !== undefined && path !== '' && !exists(path)) {
      throw new FailedPrecondition(
        `container ${container} needs the ${type} namespace ${path}, which does not exist`,
        {
          subject: container,
          reason: 'namespace-missing',
          remedy: 'make it again (ip netns add, or the pod it belonged to), then restore',
        },
      );
    }
  }
  for (const mount of spec.mounts ?? []) {
    if (mount.type !== 'bind' || mount.source === undefined || exists(mount.source)) continue;
    throw new FailedPrecondition(
      `container ${container} needs ${mount.source} for its mount ${mount.destination ?? ''}, which does not exist`,
      {
        subject: container,
        reason: 'mount-missing',
        remedy: `create ${mount.source}, then restore`,
      },
    );
  }
}
