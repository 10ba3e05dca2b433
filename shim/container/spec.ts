import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { InvalidArgument, messageOf } from '../../src/errors.ts';

/** What the shim itself reads of a bundle's config.json; the rest is the runtime's. */
export interface ContainerSpec {
  readonly cgroupsPath: string;
  /** Whether other processes share the container's pid namespace, and so outlive its first process. */
  readonly sharesPids: boolean;
  /** Whether it limits open files itself. */
  readonly limitsFiles: boolean;
  readonly annotations: Readonly<Record<string, string>>;
}

interface RawSpec {
  process?: { rlimits?: { type?: string }[] };
  linux?: { cgroupsPath?: string; namespaces?: { type?: string; path?: string }[] };
  annotations?: Record<string, string>;
}

/** @throws InvalidArgument when there is no config.json, or one that is no JSON */
export async function readSpec(bundle: string): Promise<ContainerSpec> {
  const path = join(bundle, 'config.json');
  let raw: RawSpec;
  try {
    raw = JSON.parse(await readFile(path, 'utf8')) as RawSpec;
  } catch (error) {
    throw new InvalidArgument(`cannot read ${path}: ${messageOf(error)}`, { subject: path, cause: error });
  }
  const pid = raw.linux?.namespaces?.find((namespace) => namespace.type === 'pid');
  return {
    cgroupsPath: raw.linux?.cgroupsPath ?? '',
    sharesPids: pid === undefined || (pid.path ?? '') !== '',
    limitsFiles: raw.process?.rlimits?.some(({ type }) => type === 'RLIMIT_NOFILE') ?? false,
    annotations: raw.annotations ?? {},
  };
}

/**
 * Whether a cgroup path is meant for systemd: `slice:prefix:name`. nerdctl writes such paths but sends the option that
 * goes with them to containerd's own runtimes alone.
 */
export function isSystemdPath(cgroupsPath: string): boolean {
  const parts = cgroupsPath.split(':');
  return (
    parts.length === 3 &&
    (parts[0] === '' || (parts[0] ?? '').endsWith('.slice')) &&
    !cgroupsPath.includes('/')
  );
}
