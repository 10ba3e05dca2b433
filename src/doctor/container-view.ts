// A container as the doctor sees it: what /proc says of its processes, and what its record says of it.
import { ownProcesses, strangers, type ProcessFacts } from '../sys/own-processes.ts';
import type { OciSpec } from '../checkpoint/spec.ts';
import { type MountEntry, parseMountTable } from '../sys/mount-table.ts';
import type { Proc } from './proc.ts';

export interface Descriptor {
  readonly number: number;
  /** What the link in /proc/PID/fd says: a path, `socket:[inode]`, `anon_inode:[kind]`. */
  readonly target: string;
  /** The link itself. */
  readonly path: string;
}

export interface ProcessView {
  /** As the host numbers it. */
  readonly pid: number;
  readonly parent: number;
  readonly name: string;
  /** Its ids, from the host's pid namespace to its own. */
  readonly pids: readonly number[];
  /** 0: nobody traces it. */
  readonly tracer: number;
  readonly descriptors: readonly Descriptor[];
}

/** What has to be known of a container beside its processes. */
export interface ContainerFacts {
  readonly id: string;
  /** Its first process, as the host numbers it. */
  readonly init: number;
  /** All processes of its cgroup. */
  readonly pids: readonly number[];
  /** Exec id by process, of the sessions that its shim started. */
  readonly execs: ReadonlyMap<number, string>;
  readonly spec: OciSpec;
}

export interface ContainerView extends ContainerFacts {
  readonly proc: Proc;
  /** What a dump holds: the first process and its descendants. */
  readonly processes: readonly ProcessView[];
  /** Those that joined the container from outside, with their descendants. */
  readonly joined: readonly ProcessView[];
  /** Those that are in its cgroup alone: somebody else's. */
  readonly strangers: readonly ProcessView[];
  /** Of the first process. */
  readonly mounts: readonly MountEntry[];
}

/** Looks at each process once. One that ends meanwhile is left out. */
export function viewContainer(facts: ContainerFacts, proc: Proc): ContainerView {
  const all = facts.pids.map((pid) => viewProcess(pid, proc)).filter((process) => process !== undefined);
  const inside = descendants(facts.init, all);
  const own = new Set(ownProcesses(facts.pids, facts.init, factsOf(proc)));
  const others = new Set(strangers(facts.pids, facts.init, factsOf(proc)));
  return {
    ...facts,
    proc,
    processes: all.filter((process) => inside.has(process.pid)),
    joined: all.filter(({ pid }) => !inside.has(pid) && own.has(pid)),
    strangers: all.filter(({ pid }) => !inside.has(pid) && others.has(pid)),
    mounts: parseMountTable(proc.read(`/proc/${facts.init}/mountinfo`)),
  };
}

function factsOf(proc: Proc): ProcessFacts {
  return {
    pidNamespace(pid) {
      const inode = /^pid:\[(\d+)\]$/.exec(proc.link(`/proc/${pid}/ns/pid`))?.[1];
      return inode === undefined ? undefined : Number(inode);
    },
    parent(pid) {
      const parent = /^PPid:\s*(\d+)$/m.exec(proc.read(`/proc/${pid}/status`))?.[1];
      return parent === undefined ? undefined : Number(parent);
    },
  };
}

function viewProcess(pid: number, proc: Proc): ProcessView | undefined {
  const fields = new Map(
    proc
      .read(`/proc/${pid}/status`)
      .split('\n')
      .map((line): [string, string] => {
        const colon = line.indexOf(':');
        return [line.slice(0, colon), line.slice(colon + 1).trim()];
      }),
  );
  const name = fields.get('Name');
  if (name === undefined) return undefined;
  const pids = (fields.get('NSpid') ?? String(pid)).split(/\s+/).map(Number);
  const folder = `/proc/${pid}/fd`;
  const descriptors = proc.list(folder).map((number) => {
    const path = `${folder}/${number}`;
    return { number: Number(number), target: proc.link(path), path };
  });
  return {
    pid,
    parent: Number(fields.get('PPid') ?? 0),
    name,
    pids,
    tracer: Number(fields.get('TracerPid') ?? 0),
    descriptors: descriptors.filter(({ target }) => target !== ''),
  };
}

/** The first process and all below it. What its namespace's reaper took over counts as its child. */
function descendants(init: number, all: readonly ProcessView[]): Set<number> {
  const found = new Set([init]);
  for (let before = 0; before !== found.size;) {
    before = found.size;
    for (const process of all) if (found.has(process.parent)) found.add(process.pid);
  }
  return found;
}

/** The mount that a path in the container lies on: the deepest above it, and of those at one place the last. */
export function mountOf({ mounts }: ContainerView, path: string): MountEntry | undefined {
  let found: MountEntry | undefined;
  for (const mount of mounts) {
    const holds = mount.target === '/' ? path.startsWith('/') : `${path}/`.startsWith(`${mount.target}/`);
    if (holds && mount.target.length >= (found?.target.length ?? 0)) found = mount;
  }
  return found;
}

/** A field of /proc/PID/fdinfo/N, such as `mnt_id` or `flags`. */
export function descriptorField(view: ContainerView, path: string, field: string): string | undefined {
  const info = view.proc.read(path.replace('/fd/', '/fdinfo/'));
  return new RegExp(`^${field}:\\s*(\\S+)`, 'm').exec(info)?.[1];
}

/** The inode of a socket or pipe that a descriptor leads to. */
export function inodeOf({ target }: Descriptor, kind: 'socket' | 'pipe'): string | undefined {
  return target.startsWith(`${kind}:[`) ? target.slice(kind.length + 2, -1) : undefined;
}

/** `process 4242 (node)`, with its number inside where that is another. */
export function nameProcess({ pid, name, pids }: ProcessView): string {
  const inner = pids.at(-1) ?? pid;
  return `process ${pid} (${name}${inner === pid ? '' : `, ${inner} inside`})`;
}

export function nameDescriptor(process: ProcessView, descriptor: Descriptor): string {
  return `${nameProcess(process)}, descriptor ${descriptor.number}`;
}

/** Every descriptor once for each process that has it. */
export function* eachDescriptor(
  view: ContainerView,
): Generator<{ process: ProcessView; descriptor: Descriptor; subject: string }> {
  for (const process of view.processes) {
    for (const descriptor of process.descriptors) {
      yield { process, descriptor, subject: nameDescriptor(process, descriptor) };
    }
  }
}
