import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';
import { InvalidArgument, messageOf } from '../../src/errors.ts';

/** What the shim itself reads of a bundle's config.json; the rest is the runtime's. */
export interface ContainerSpec {
  readonly cgroupsPath: string;
  /** Whether other processes share the container's pid namespace, and so outlive its first process. */
  readonly sharesPids: boolean;
  /** Whether it limits open files itself. */
  readonly limitsFiles: boolean;
  /** Whether programs run after its start, or the runtime's own program goes on in the container's place (crun's handlers). */
  readonly startsSpecially: boolean;
  /** Whether programs run at its end, which may look at its root file system. */
  readonly hasPoststop: boolean;
  readonly annotations: Readonly<Record<string, string>>;
}

/** By which crun runs a container by a handler of its own: crun(1), run.oci.handler. */
const handlerAnnotations = ['run.oci.handler', 'module.wasm.image/variant'];

interface RawSpec {
  process?: { rlimits?: { type?: string }[] };
  linux?: { cgroupsPath?: string; namespaces?: { type?: string; path?: string }[] };
  hooks?: { poststart?: unknown[]; poststop?: unknown[] };
  annotations?: Record<string, string>;
}

/**
 * On this thread: containerd has just written the file, to a folder in memory, and a client waits.
 * @throws InvalidArgument when there is no config.json, or one that is none
 */
export function readSpec(bundle: string): ContainerSpec {
  if (!isAbsolute(bundle)) {
    throw new InvalidArgument(`the bundle must be an absolute path: ${JSON.stringify(bundle)}`, {
      subject: bundle,
    });
  }
  const path = join(bundle, 'config.json');
  try {
    return specOf(JSON.parse(readPlainFile(path)) as RawSpec);
  } catch (error) {
    throw new InvalidArgument(`cannot read ${path}: ${messageOf(error)}`, { subject: path, cause: error });
  }
}

/** Never waits for a writer, which a FIFO in its place would do for all containers. */
function readPlainFile(path: string): string {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    if (!fstatSync(fd).isFile()) throw new Error('it is no file');
    return readFileSync(fd, 'utf8');
  } finally {
    closeSync(fd);
  }
}

/** @throws TypeError where something is of another type than OCI's */
function specOf(raw: RawSpec): ContainerSpec {
  const cgroupsPath = raw.linux?.cgroupsPath ?? '';
  if (typeof cgroupsPath !== 'string') throw new TypeError('linux.cgroupsPath is not a string');
  const pid = raw.linux?.namespaces?.find((namespace) => namespace.type === 'pid');
  return {
    cgroupsPath,
    sharesPids: pid === undefined || (pid.path ?? '') !== '',
    limitsFiles: raw.process?.rlimits?.some(({ type }) => type === 'RLIMIT_NOFILE') ?? false,
    startsSpecially:
      (raw.hooks?.poststart?.length ?? 0) > 0 ||
      handlerAnnotations.some((name) => raw.annotations?.[name] !== undefined),
    hasPoststop: (raw.hooks?.poststop?.length ?? 0) > 0,
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

/**
 * Where a cgroup path leads inside the hierarchy. Of `slice:prefix:name` systemd makes a scope in a slice, and each dash in
 * a slice's name a level (systemd.slice(5)).
 * @returns undefined for a path that depends on where the runtime itself runs
 */
export function cgroupOf(cgroupsPath: string): string | undefined {
  if (!isSystemdPath(cgroupsPath)) return cgroupsPath.startsWith('/') ? cgroupsPath : undefined;
  const [slice = '', prefix = '', name = ''] = cgroupsPath.split(':');
  const parts = (slice === '' ? 'system.slice' : slice).slice(0, -'.slice'.length).split('-');
  const levels = parts.map((_, i) => `${parts.slice(0, i + 1).join('-')}.slice`);
  return `/${[...levels, prefix === '' ? `${name}.scope` : `${prefix}-${name}.scope`].join('/')}`;
}
