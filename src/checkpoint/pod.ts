// Containers that are brought back as one: those of a pod.
import { randomUUID } from 'node:crypto';
import { findTask, type NamespaceClient } from '../containerd/client.ts';
import { codeOf, FailedPrecondition, messageOf, StasisError } from '../errors.ts';
import type { Container } from '../proto/gen/containerd/containers.ts';
import { Status } from '../proto/gen/containerd/task_types.ts';
import type { CheckpointEntry } from './entry.ts';
import { isSandbox, sandboxOf } from './members.ts';
import { Barrier } from './rendezvous.ts';
import { decodeSpec, encodeSpec } from './spec.ts';

/**
 * Several rewinds that are one: all succeed, or each is undone.
 *
 * INVARIANTS
 * - One task is started at a time: in a pid namespace that they share, what CRIU runs beside one restore could have the number
 *   that another needs.
 * - None puts anything back before all have been stopped, so that no process finds its number taken where they share a pid
 *   namespace; none counts before all run.
 * - After a failure none brings its former task back before those that were restored have been ended.
 * - Each comes to every gate once at most, and each leaves: its place is closed whatever happened.
 */
export class RewindTogether {
  readonly #group = randomUUID();
  readonly #stopped: Barrier;
  readonly #started: Barrier;
  readonly #ended: Barrier;
  #failed = false;
  #last: Promise<unknown> = Promise.resolve();

  constructor(count: number) {
    this.#stopped = new Barrier(count);
    this.#started = new Barrier(count);
    this.#ended = new Barrier(count);
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => undefined);
    return result;
  }

  /** The part of one of them, by its name. */
  place(id: string): RewindPlace {
    let ended = false;
    const end = async (): Promise<void> => {
      if (ended) return;
      ended = true;
      await this.#ended.come();
    };
    return {
      group: this.#group,
      stopped: () => this.#stopped.come(),
      started: () => this.#started.come(),
      inTurn: (work) => this.#inTurn(work),
      fail: (error) => {
        if (this.#failed) return;
        this.#failed = true;
        for (const gate of [this.#stopped, this.#started]) gate.fail(becauseOf(id, error));
      },
      ended: end,
      close: () => void end(),
    };
  }
}

/** What the others are told. */
function becauseOf(id: string, error: unknown): StasisError {
  const text = `it is as it was, since ${id} of the same pod could not be brought back: ${messageOf(error)}`;
  return new StasisError(codeOf(error), text, {
    subject: id,
    reason: 'pod-not-restored',
    cause: error,
    remedy: `see what is said of ${id}`,
  });
}

export interface RewindPlace {
  /** The same of all. */
  readonly group: string;
  /** Set when its task was restored. */
  isRestored?: boolean;
  /** Resolves when all are stopped; rejects with the failure of another. */
  stopped(): Promise<void>;
  /** Starts a task when no other of them is being started, a former one too. */
  inTurn<T>(work: () => Promise<T>): Promise<T>;
  /** Resolves when all run. */
  started(): Promise<void>;
  /** Has the others fail, too. */
  fail(error: unknown): void;
  /** After a failure, when nothing that was restored here runs any more: resolves when that is so of all. */
  ended(): Promise<void>;
  /** For one that never came so far. */
  close(): void;
}

/** A member of a set, as the restore has found it. */
export interface PodMember {
  readonly id: string;
  readonly record: Container;
}

/**
 * Sorts the members of pods out.
 * @returns the pods whose sandbox is among them, by its id, each with those of its containers that are
 */
export function podsAmong(members: readonly PodMember[]): Map<string, string[]> {
  const pods = new Map<string, string[]>(
    members.filter(({ record }) => isSandbox(record)).map(({ id }) => [id, []]),
  );
  for (const { id, record } of members) {
    const sandbox = sandboxOf(record);
    if (sandbox !== undefined && sandbox !== id) pods.get(sandbox)?.push(id);
  }
  return pods;
}

/** Whether a container's task runs, or is paused. */
export async function isUp(client: NamespaceClient, id: string): Promise<boolean> {
  const status = (await findTask(client, id))?.status;
  return status === Status.RUNNING || status === Status.PAUSED;
}

/**
 * A container's record for the pod as it now is: the namespaces that it shares are named by the number of the sandbox's process,
 * which is another one when the sandbox itself was brought back.
 * @returns the record as it is where it is not of a pod, or its sandbox does not run
 */
export async function inPodOfNow(client: NamespaceClient, record: Container): Promise<Container> {
  const sandbox = sandboxOf(record);
  if (sandbox === undefined || sandbox === record.id) return record;
  const task = await findTask(client, sandbox);
  if (task === undefined || task.pid === 0 || task.status === Status.STOPPED) return record;
  const spec = decodeSpec(record.spec, record.id);
  const joined = (spec.linux?.namespaces ?? []).map((namespace) => ({
    ...namespace,
    ...(namespace.path === undefined ? {} : { path: throughProcess(namespace.path, task.pid) }),
  }));
  if (joined.every(({ path }, index) => path === spec.linux?.namespaces?.[index]?.path)) return record;
  return { ...record, spec: encodeSpec({ ...spec, linux: { ...spec.linux, namespaces: joined } }) };
}

/** The same namespace of another process. */
export function throughProcess(path: string, pid: number): string {
  return path.replace(/^\/proc\/\d+\/ns\//, `/proc/${pid}/ns/`);
}

/**
 * A sandbox that was brought back by itself would leave its containers behind in the namespaces that it had before.
 * @throws FailedPrecondition where containers of its pod run
 */
export async function assertNoPodAround(
  client: NamespaceClient,
  record: Container,
  { set, name }: Pick<CheckpointEntry, 'set' | 'name'>,
): Promise<void> {
  const { id } = record;
  if (!isSandbox(record) || !(await isUp(client, id))) return;
  const { containers } = await client.containers.list({ filters: [] });
  const others = containers.filter((one) => one.id !== id && sandboxOf(one) === id);
  for (const other of others) {
    if (!(await isUp(client, other.id))) continue;
    throw new FailedPrecondition(
      `${id} is the sandbox of a pod in which ${other.id} runs: brought back alone, it would leave that behind in its former namespaces`,
      {
        subject: id,
        reason: 'is-a-sandbox',
        remedy:
          set === ''
            ? 'bring its containers back, each by its name'
            : `bring the pod back as one: stasis restore --set ${name}`,
      },
    );
  }
}
