// Several containers at one instant.
import { AlreadyExists, FailedPrecondition, InvalidArgument } from '../errors.ts';
import type { InstantResponse } from '../proto/gen/stasis/engine.ts';
import {
  type Begun,
  beginTaking,
  identityOf,
  nameSnapshot,
  notDumped,
  openDisk,
  type OpenDisk,
} from './begin.ts';
import {
  type CheckpointEntry,
  diskProperties,
  memberProperties,
  newCheckpointId,
  setProperties,
} from './entry.ts';
import { type Host, lockKey, type Report, snapshotterName } from './host.ts';
import { isSandbox, selectMembers } from './members.ts';
import {
  defaultCheckpointName,
  validateCheckpointName,
  validateContainerId,
  validateNamespace,
} from './names.ts';
import { assertCanPrecopy, mergePrecopied, type Precopied, precopy } from './precopy.ts';
import { removeOne } from './remove.ts';
import { Rendezvous } from './rendezvous.ts';
import { Steps } from './steps.ts';
import { entryOf, storeMemory, type TakeRequest, type Taking } from './taking.ts';
import { IsPod, takeCheckpoint } from './take.ts';
import { endTask, withPausedTask } from './task.ts';
import { takeTogether } from './together.ts';

/** As for one container, but for which. */
export interface SetRequest extends Omit<TakeRequest, 'container'> {
  readonly containers: readonly string[];
}

interface Member extends OpenDisk {
  readonly taking: Taking;
  readonly leaf: string;
  readonly snapshot: string;
  readonly precopied?: Precopied | undefined;
}

/**
 * Takes checkpoints of several containers at one instant and under one name: all of them are frozen before the first is
 * dumped, and all disks are snapshotted before the first runs on. All or nothing: a failure leaves every container as it
 * was and nothing in the pool; so does the death of stasisd, whose next start destroys what is not whole.
 * @returns a checkpoint of each container, sorted by the containers' names
 * @throws as takeCheckpoint; FailedPrecondition for a container whose disk is on another snapshotter
 */
export async function takeSet(host: Host, request: SetRequest, report: Report): Promise<CheckpointEntry[]> {
  const { namespace, signal } = request;
  validateNamespace(namespace);
  for (const container of request.containers) validateContainerId(container);
  if (request.name !== '') validateCheckpointName(request.name);
  await assertCanPrecopy(host, request);
  const containers = [...new Set(request.containers)].sort();
  if (containers.length === 0) throw noMembers(namespace);
  const keys = [
    ...containers.map((container) => lockKey(namespace, container)),
    // Two sets at once must not choose one name. No container has this key: names have no colon.
    lockKey(namespace, ':set'),
  ];
  return host.locks.run(keys, () => takeAll(host, { ...request, containers }, report), signal);
}

/** A checkpoint of a container; of a CRI sandbox, one of each container of its pod. */
export async function takeOneOrPod(
  host: Host,
  request: TakeRequest,
  report: Report,
): Promise<CheckpointEntry[]> {
  try {
    return [await takeCheckpoint(host, request, report)];
  } catch (error) {
    if (!(error instanceof IsPod)) throw error;
  }
  const { namespace, container: pod, diskOnly } = request;
  const containers = await selectMembers(
    host,
    { namespace, containers: [], labels: [], pod, diskOnly },
    report,
  );
  return takeSet(host, { ...request, containers }, report);
}

function noMembers(namespace: string): InvalidArgument {
  return new InvalidArgument('a set needs a container', {
    subject: namespace,
    reason: 'no-name',
    remedy: 'name those that belong to it, or --label one that they have: see ctr containers ls',
  });
}

async function takeAll(host: Host, request: SetRequest, report: Report): Promise<CheckpointEntry[]> {
  const name = freeName(host, request);
  const set = newCheckpointId();
  const begun: Begun[] = [];
  try {
    const found = await Promise.allSettled(
      request.containers.map(async (container) => {
        const one = { ...request, container };
        const warn = (message: string): void => report.warn(`${container}: ${message}`);
        const member = await beginTaking(host, one, { phase: () => undefined, warn }, () => name, set);
        begun.push(member);
        return member;
      }),
    );
    const takings = await Promise.all(all(found).map((one) => one.judge()));
    for (const taking of takings) assertOwnDisk(taking);
    const entries = await takeMembers(host, request, takings, report);
    for (const entry of entries) {
      host.catalog.add(entry);
      host.storing.forget(entry.namespace, entry.container);
      if (entry.memoryError !== '')
        report.warn(`${entry.container}: memory was not dumped: ${entry.memoryError}`);
    }
    return entries;
  } finally {
    for (const member of begun) member.close();
  }
}

/** A set's name is free in its namespace, and as a checkpoint's of each member. */
function freeName(host: Host, { namespace, containers, name }: SetRequest): string {
  const isTaken = (wanted: string): boolean =>
    host.catalog.ofSet(namespace, wanted).length > 0 ||
    containers.some((container) => host.catalog.has(namespace, container, wanted));
  if (name === '') return defaultCheckpointName(new Date(), isTaken);
  for (const container of containers) host.catalog.assertFree(namespace, container, name);
  const members = host.catalog.ofSet(namespace, name);
  if (members.length === 0) return name;
  throw new AlreadyExists(
    `there is a set ${name} of ${members.map(({ container }) => container).join(', ')}`,
    {
      subject: name,
      reason: 'checkpoint-exists',
      remedy: 'choose another --name',
    },
  );
}

/** A diff is written while the container stands still, at a cost that grows with it: no other shall wait for that. */
function assertOwnDisk({ request, record }: Taking): void {
  if (record.snapshotter === snapshotterName) return;
  throw new FailedPrecondition(
    `container ${request.container} is on the snapshotter ${record.snapshotter || '(none)'}, and a set is made of ZFS snapshots`,
    {
      subject: request.container,
      reason: 'not-in-a-set',
      remedy: `take it alone: stasis checkpoint ${request.container}`,
    },
  );
}

/** The results, or the first failure when all have ended. */
function all<T>(settled: readonly PromiseSettledResult<T>[]): T[] {
  return settled.map((result) => {
    if (result.status === 'rejected') throw result.reason;
    return result.value;
  });
}

async function takeMembers(
  host: Host,
  request: SetRequest,
  takings: readonly Taking[],
  report: Report,
): Promise<CheckpointEntry[]> {
  await using steps = new Steps(host.log);
  const opened = await Promise.allSettled(
    takings.map(async (taking): Promise<Member> => {
      const disk = await openDisk(host, taking);
      steps.undo('remove a staging folder', () => disk.stage.remove());
      return { ...disk, taking, ...nameSnapshot(host, disk.dataset, taking.name) };
    }),
  );
  const members: Member[] = [];
  // One after another: two at once would each find the other's pages changed for longer.
  for (const member of all(opened))
    members.push({ ...member, precopied: await precopy(host, within(member.taking, report), member.stage) });
  const finish = async (): Promise<CheckpointEntry[]> => {
    const taken = await instantOf(host, request, members, steps, report);
    const instants: InstantResponse[] = [];
    for (const [index, { taking, stage, precopied }] of members.entries())
      instants.push(await mergePrecopied(host, taking, stage, precopied, taken[index] ?? notDumped));
    const provisional = members.map((member, index) =>
      entryOf(member.taking, { ...member, instant: instants[index] ?? notDumped }, 0),
    );
    request.atInstant?.(provisional);
    const entries = await storeAll(host, members, instants, steps, report);
    for (const { dataset, leaf, taking } of members) host.store.noteCheckpoint(dataset, leaf, taking.id);
    return entries;
  };
  // Awaited here: what is undone is undone when this function ends.
  return request.exit ? await endingAll(host, request.namespace, takings, finish) : await finish();
}

/** A member that tells what is done with it: the others wait meanwhile. */
function within(taking: Taking, report: Report): Taking {
  const told: Report = {
    phase: (what, ...bytes) => report.phase(`${taking.request.container}: ${what}`, ...bytes),
    warn: (message) => taking.report.warn(message),
  };
  return { ...taking, report: told };
}

/**
 * Keeps all of them paused until `finish` has made the checkpoints safe, and ends them then. A sandbox last: where its containers
 * share its pid namespace, it does not come to its end before they do, and they cannot while they stand still.
 */
async function endingAll<T>(
  host: Host,
  namespace: string,
  takings: readonly Taking[],
  finish: () => Promise<T>,
): Promise<T> {
  const pause = async (rest: readonly string[]): Promise<T> => {
    const [container, ...others] = rest;
    if (container === undefined) return finish();
    return withPausedTask(host, namespace, container, async (stays) => {
      const made = await pause(others);
      stays();
      await endTask(host, namespace, container);
      return made;
    });
  };
  // The first to be paused is the last to be ended.
  const [sandboxes, others] = [takings.filter(isOfSandbox), takings.filter((one) => !isOfSandbox(one))];
  return pause([...sandboxes, ...others].map(({ record }) => record.id));
}

function isOfSandbox({ record }: Taking): boolean {
  return isSandbox(record);
}

/** All stand still, are dumped and snapshotted, and run on. */
async function instantOf(
  host: Host,
  request: SetRequest,
  members: readonly Member[],
  steps: Steps,
  report: Report,
): Promise<InstantResponse[]> {
  const made = new Set<string>();
  const destroy = async (): Promise<void> => {
    for (const snapshot of made) await host.zfs.destroyIdempotent(snapshot);
    made.clear();
  };
  steps.undo('destroy the disk snapshots', destroy);
  const gates = new Rendezvous(members.length, async (again) => {
    if (again) await destroy();
    await snapshotAll(host, members, (snapshot) => made.add(snapshot));
  });
  request.signal.throwIfAborted();
  report.phase(`freezing ${members.length} containers, dumping memory and snapshotting the disks`);
  const leave = (): void => gates.fail(request.signal.reason);
  request.signal.addEventListener('abort', leave, { once: true });
  try {
    const taken = members.map(({ taking, snapshot, rootfs, stage, precopied }) => {
      const options = { snapshot, properties: {}, syncPath: rootfs, stage, precopied };
      return takeTogether(host, taking, options, gates);
    });
    const settled = await Promise.allSettled(taken);
    gates.failed.throwIfAborted(); // with the one failure that ended them all
    const instants = all(settled);
    await nameAll(host, members);
    return instants;
  } finally {
    request.signal.removeEventListener('abort', leave);
  }
}

/**
 * Snapshots all disks: OpenZFS in one transaction; zfs-fuse one after another, while all stand still. `about` is told of each
 * that may exist from then on.
 */
async function snapshotAll(
  host: Host,
  members: readonly Member[],
  about: (snapshot: string) => void,
): Promise<void> {
  const [first] = members;
  if (host.zfs.kind === 'openzfs' && first !== undefined && members.length > 1) {
    const names = members.map(({ snapshot }) => snapshot);
    await snapshotOurs(host, names, setProperties(identityOf(first.taking)), about);
    return;
  }
  for (const { snapshot, taking } of members)
    await snapshotOurs(host, [snapshot], diskProperties(identityOf(taking)), about);
}

/** One that found a name taken has done nothing, and what is there is not ours to destroy. */
async function snapshotOurs(
  host: Host,
  names: readonly string[],
  properties: Readonly<Record<string, string>>,
  about: (snapshot: string) => void,
): Promise<void> {
  try {
    await host.zfs.snapshot(names, { properties });
  } catch (error) {
    if (!(error instanceof AlreadyExists)) names.forEach(about);
    throw error;
  }
  names.forEach(about);
}

/** What one command for all could not say of each. */
async function nameAll(host: Host, members: readonly Member[]): Promise<void> {
  if (host.zfs.kind !== 'openzfs' || members.length < 2) return;
  for (const { snapshot, taking } of members)
    await host.zfs.set(snapshot, memberProperties(identityOf(taking)));
}

/** Makes the members whole one after another. They count from the moment at which the set is no longer noted as unfinished. */
async function storeAll(
  host: Host,
  members: readonly Member[],
  instants: readonly InstantResponse[],
  steps: Steps,
  report: Report,
): Promise<CheckpointEntry[]> {
  const set = members[0]?.taking.set ?? '';
  let left = 0;
  steps.undo('forget the unfinished set', async () => {
    if (left === 0) await host.unfinishedSets.end(set); // else the next start destroys what is left of it
  });
  await host.unfinishedSets.begin(set);
  const entries: CheckpointEntry[] = [];
  for (const [index, { taking, dataset, snapshot, pool, stage }] of members.entries()) {
    const instant = instants[index];
    if (instant === undefined) throw new TypeError('a member without an instant');
    report.phase(`storing ${taking.request.container}`, index, members.length);
    const entry = await storeMemory(host, taking, { dataset, snapshot, pool, stage, instant });
    steps.undo(`remove the checkpoint of ${entry.container}`, async () => {
      await removeOne(host, entry);
      left--;
    });
    left++;
    entries.push(entry);
  }
  await host.unfinishedSets.end(set);
  steps.commit();
  return entries;
}
