// Several containers brought back, each to its own checkpoint.
import { InvalidArgument } from '../errors.ts';
import { type Host, lockKey, type Report } from './host.ts';
import { validateCheckpointName, validateContainerId, validateNamespace } from './names.ts';
import type { Paging } from './paging.ts';
import { openCheckpoint } from './open.ts';
import { isUp, type PodMember, podsAmong, RewindTogether } from './pod.ts';
import { restore, restoreLocked, type Restored, type RestoreRequest } from './restore.ts';
import { noSuchSet } from './unfinished-sets.ts';

export interface RestoreSetRequest {
  readonly namespace: string;
  /** Empty: the containers, wherever their checkpoints come from. */
  readonly set: string;
  /** With a set: only these of its members; empty: all. */
  readonly containers: readonly string[];
  /** Without a set: the name of each one's checkpoint; empty: the latest. */
  readonly checkpoint: string;
  readonly requireMemory: boolean;
  readonly paging: Paging;
  readonly signal: AbortSignal;
}

export interface Outcomes {
  readonly restored: (restored: Restored) => void;
  readonly failed: (container: string, checkpoint: string, error: unknown) => void;
}

/**
 * Rewinds containers one after another, those of a pod whose sandbox is among them as one. What fails leaves its container as
 * it was, and is told; the others are restored all the same. The signal ends it between two of them, or undoes the one under way.
 * @throws NotFound for a set that is not there, or a container that is not of it
 */
export async function restoreSet(
  host: Host,
  request: RestoreSetRequest,
  tell: Outcomes,
  report: Report,
): Promise<void> {
  const { namespace, signal, requireMemory, paging } = request;
  const wanted = choose(host, request);
  const common = { namespace, requireMemory, paging, signal, as: '' };
  const pods = await podsOf(host, namespace, wanted);
  const inPods = new Set([...pods].flatMap(([sandbox, members]) => [sandbox, ...members]));
  for (const [sandbox, members] of pods) {
    signal.throwIfAborted();
    const of = (id: string): Wanted => wanted.find(({ container }) => container === id) ?? missing(id);
    await restorePod(host, common, { sandbox: of(sandbox), members: members.map(of) }, tell, report);
  }
  const alone = wanted.filter(({ container }) => !inPods.has(container));
  for (const [index, { container, checkpoint }] of alone.entries()) {
    signal.throwIfAborted();
    report.phase(`restoring ${container}`, index, alone.length);
    try {
      tell.restored(await restore(host, { ...common, container, checkpoint }, quietly(report, container)));
    } catch (error) {
      signal.throwIfAborted();
      tell.failed(container, checkpoint, error);
    }
  }
}

interface Wanted {
  readonly container: string;
  readonly checkpoint: string;
}

function missing(id: string): never {
  throw new TypeError(`${id} is not among those that are restored`);
}

/** The warnings of one of several. */
function quietly(report: Report, container: string): Report {
  return { phase: () => undefined, warn: (message) => report.warn(`${container}: ${message}`) };
}

/** The pods whose sandbox is among the containers. What containerd has no record of any more is asked of its checkpoint. */
async function podsOf(
  host: Host,
  namespace: string,
  wanted: readonly Wanted[],
): Promise<Map<string, string[]>> {
  const client = host.containerd.namespace(namespace);
  const { containers } = await client.containers.list({ filters: [] });
  const members = await Promise.all(
    wanted.map(async ({ container: id, checkpoint }): Promise<PodMember | undefined> => {
      const record = containers.find((one) => one.id === id);
      if (record !== undefined) return { id, record };
      const found =
        checkpoint === ''
          ? host.catalog.latest(namespace, id)
          : host.catalog.of(namespace, id).findLast((entry) => entry.name === checkpoint);
      if (found === undefined) return undefined; // its restore says so
      return host.catalog.reading(found, async () => {
        const memory = await openCheckpoint(host, found);
        const { container } = memory.record;
        await memory.close();
        return { id, record: container };
      });
    }),
  );
  return podsAmong(members.filter((member) => member !== undefined));
}

/**
 * Brings a pod back as one: its sandbox first where that does not run, then all containers together. One that fails is told of
 * each, and each is as it was. A sandbox that runs is left alone: all that it holds is the namespaces of the pod, with their
 * network.
 */
async function restorePod(
  host: Host,
  common: Omit<RestoreRequest, 'container' | 'checkpoint'>,
  { sandbox, members }: { readonly sandbox: Wanted; readonly members: readonly Wanted[] },
  tell: Outcomes,
  report: Report,
): Promise<void> {
  const { namespace, signal } = common;
  const all = [sandbox, ...members];
  const keys = all.map(({ container }) => lockKey(namespace, container));
  const work = async (): Promise<void> => {
    const client = host.containerd.namespace(namespace);
    if (!(await isUp(client, sandbox.container)) || members.length === 0) {
      report.phase(`restoring the sandbox ${sandbox.container}`);
      const quiet = quietly(report, sandbox.container);
      tell.restored(await restoreLocked(host, { ...common, ...sandbox }, quiet));
    } else {
      report.warn(
        `${sandbox.container} runs and is left as it is, since the namespaces of its pod are all it holds`,
      );
    }
    report.phase(`restoring the ${members.length} containers of the pod ${sandbox.container}`);
    const together = new RewindTogether(members.length);
    const results = await Promise.allSettled(
      members.map(async (member) => {
        const place = together.place(member.container);
        try {
          const quiet = quietly(report, member.container);
          return await restoreLocked(host, { ...common, ...member }, quiet, place);
        } catch (error) {
          place.fail(error);
          throw error;
        } finally {
          place.close();
        }
      }),
    );
    if (results.some(({ status }) => status === 'rejected')) signal.throwIfAborted();
    for (const [index, result] of results.entries()) {
      const { container, checkpoint } = members[index] ?? missing(String(index));
      if (result.status === 'fulfilled') tell.restored(result.value);
      else tell.failed(container, checkpoint, result.reason);
    }
  };
  try {
    await host.locks.run(keys, work, signal);
  } catch (error) {
    signal.throwIfAborted();
    for (const { container, checkpoint } of all) tell.failed(container, checkpoint, error);
  }
}

function choose(
  host: Host,
  { namespace, set, containers, checkpoint }: RestoreSetRequest,
): { container: string; checkpoint: string }[] {
  validateNamespace(namespace);
  for (const container of containers) validateContainerId(container);
  for (const name of [set, checkpoint]) if (name !== '') validateCheckpointName(name);
  const named = [...new Set(containers)].sort();
  if (set === '') {
    if (named.length > 0) return named.map((container) => ({ container, checkpoint }));
    throw new InvalidArgument('no set and no container named', { subject: namespace, reason: 'no-name' });
  }
  const members = host.catalog.ofSet(namespace, set).map(({ container }) => container);
  if (members.length === 0) throw noSuchSet(namespace, set, setsOf(host, namespace));
  const stranger = named.find((container) => !members.includes(container));
  if (stranger !== undefined) {
    throw new InvalidArgument(`container ${stranger} is not in the set ${set}`, {
      subject: stranger,
      reason: 'not-in-the-set',
      remedy: `it has ${members.join(', ')}`,
    });
  }
  return (named.length > 0 ? named : members).map((container) => ({ container, checkpoint: set }));
}

function setsOf(host: Host, namespace: string): string[] {
  const entries = [...host.catalog.all()].filter(
    (entry) => entry.set !== '' && entry.namespace === namespace,
  );
  return [...new Set(entries.map(({ name }) => name))].sort();
}
