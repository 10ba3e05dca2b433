import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { timestamp } from '../api/convert.ts';
import type { Timestamp } from '../proto/gen/google/protobuf/timestamp.ts';
import { TaskDefinition } from '../proto/gen/containerd/task.ts';
import type { Shim } from '../proto/gen/stasis/stasis.ts';
import { Client } from '../../ttrpc/index.ts';
import { askGuard, type EndNote, type GuardStatus } from './control.ts';

/** A shim that does not answer for so long is not listed. */
const TIMEOUT_MS = 3000;

/** A shim that runs on this host. */
export interface RunningShim {
  /** Where containerd asks it. */
  readonly socket: string;
  /** Empty where it is not known: a shim that serves a single container or pod and has none. */
  readonly namespace: string;
  /** To containerd: the guard, where there is one. */
  readonly pid: number;
  /** Of the program that does the work; empty while none serves. */
  readonly version: string;
  /** undefined for a shim without one. */
  readonly guard: GuardStatus | undefined;
  readonly containers: readonly string[];
}

interface Task {
  readonly namespace: string;
  readonly id: string;
}

/**
 * All shims of this host, by what they have in the run folder; neither containerd nor stasisd need be there to be asked.
 * @param runDir `daemon.run_dir`; its layout is in shim/paths.ts
 */
export async function listShims(runDir: string): Promise<RunningShim[]> {
  const folder = join(runDir, 's');
  const sockets = namesIn(folder).filter((name) => /^[0-9a-f]{20}$/.test(name));
  const tasks = tasksBySocket(join(runDir, 'tasks'));
  const shared = sharedShims(join(runDir, 'resident'));
  const found = await Promise.all(
    sockets.map(async (name) => {
      const socket = join(folder, name);
      const own = tasks.get(socket) ?? [];
      const namespace = own[0]?.namespace ?? shared.get(socket) ?? '';
      return (await describe(socket, namespace, own)) ?? [];
    }),
  );
  return found
    .flat()
    .sort((a, b) => (a.namespace < b.namespace ? -1 : a.namespace > b.namespace ? 1 : a.pid - b.pid));
}

/** A shim as the API has it. */
export function shimMessage({ guard, ...shim }: RunningShim): Shim {
  return {
    ...shim,
    containers: [...shim.containers],
    guard:
      guard === undefined
        ? undefined
        : {
            version: guard.version,
            workerPid: guard.worker?.pid ?? 0,
            restarts: guard.restarts,
            lastEnd: guard.lastEnd?.why ?? '',
            lastEndAt: guard.lastEnd === undefined ? undefined : timeOf(guard.lastEnd),
            protocol: guard.protocol,
            ends: endsOf(guard).map((end) => ({ why: end.why, at: timeOf(end) })),
          },
  };
}

/** An older guard keeps the last one alone. */
function endsOf({ ends, lastEnd }: GuardStatus): readonly EndNote[] {
  return ends ?? (lastEnd === undefined ? [] : [lastEnd]);
}

const timeOf = ({ at }: EndNote): Timestamp => timestamp(BigInt(at) * 1_000_000n);

/**
 * Why the shim that holds a task does not answer; undefined where nobody can say: it has no guard, or a worker of which nothing is known
 * yet. Where it has no such task, too.
 * @param runDir `daemon.run_dir`
 */
export async function whySilent(runDir: string, namespace: string, id: string): Promise<string | undefined> {
  const socket = socketOf(join(runDir, 'tasks', namespace, id));
  const guard = socket === '' ? undefined : await guardAt(socket);
  if (guard === undefined || guard.worker !== undefined) return undefined;
  return `its guard (pid ${guard.pid}) has no worker: ${guard.lastEnd?.why ?? 'the first one is being started'}`;
}

/** Where the guard of the shim at `socket` is asked about itself: shim/paths.ts. */
export function controlOf(socket: string): string {
  return join(socket, '..', `g${basename(socket).slice(1)}`);
}

async function describe(
  socket: string,
  namespace: string,
  tasks: readonly Task[],
): Promise<RunningShim | undefined> {
  const containers = tasks.map(({ id }) => id).sort();
  const guard = await guardAt(socket);
  if (guard !== undefined) {
    const { pid, worker } = guard;
    return { socket, namespace, pid, version: worker?.version ?? '', guard, containers };
  }
  const connected = await connectTo(socket, containers[0]).catch(() => undefined);
  return connected === undefined ? undefined : { socket, namespace, guard, containers, ...connected };
}

async function guardAt(socket: string): Promise<GuardStatus | undefined> {
  const answer = await askGuard(controlOf(socket), 'status', TIMEOUT_MS).catch(() => undefined);
  return answer !== undefined && 'status' in answer ? answer.status : undefined;
}

/** A shim takes the first Connect of a connection for a restarted containerd's, whose task must be there; the second need not name one. */
async function connectTo(
  socket: string,
  id = '-',
): Promise<{ readonly pid: number; readonly version: string }> {
  const limits = { timeout: TIMEOUT_MS };
  const client = await Client.connect(socket, { signal: AbortSignal.timeout(TIMEOUT_MS) });
  try {
    const tasks = client.service(TaskDefinition);
    const first = await tasks.connect({ id }, limits).catch(() => undefined);
    const { shimPid, version } = first ?? (await tasks.connect({ id: '' }, limits));
    return { pid: shimPid, version };
  } finally {
    client.close();
  }
}

function tasksBySocket(folder: string): Map<string, Task[]> {
  const found = new Map<string, Task[]>();
  for (const namespace of namesIn(folder)) {
    for (const id of namesIn(join(folder, namespace))) {
      const socket = socketOf(join(folder, namespace, id));
      if (socket !== '') found.set(socket, [...(found.get(socket) ?? []), { namespace, id }]);
    }
  }
  return found;
}

/** The socket of the shim that holds a task, by the task's folder; empty where there is none. */
const socketOf = (folder: string): string => textOf(join(folder, 'address')).replace(/^unix:\/\//, '');

/** Namespaces by the sockets of the shims that serve all of them. */
function sharedShims(folder: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const path of namesIn(folder, true)) {
    const [, , socket = ''] = path.endsWith('/shim') ? textOf(join(folder, path)).split(' ') : [];
    if (socket !== '') found.set(socket, path.split('/').at(-2) ?? '');
  }
  return found;
}

function namesIn(folder: string, recursive = false): string[] {
  try {
    return readdirSync(folder, { recursive, encoding: 'utf8' });
  } catch {
    return []; // it is not there, or has just gone
  }
}

function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    return '';
  }
}
