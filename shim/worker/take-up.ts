import { readdir } from 'node:fs/promises';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../../src/errors.ts';
import { Container } from '../container/container.ts';
import type { ShimContext } from '../container/context.ts';
import { readOptions } from '../../src/containerd/task-options.ts';
import { readRecord, RecordFile, type TaskRecord } from '../container/record.ts';
import { readSpec } from '../container/spec.ts';
import { decodeCreate } from '../container/take-up.ts';
import { clearTask } from '../lifecycle/clear.ts';
import type { Containers } from '../service/containers.ts';

/** Programs that a worker calls for a container, and that go on without it. */
const PROGRAMS: ReadonlySet<string> = new Set(['runc', 'crun', 'criu']);
const POLL_MS = 5;
/** For how long they are waited for: a dump ends sooner, or its own caller has given up. */
const ALONE_MS = 60_000;

/** A task's record, written at once where another worker may have to take the task up. */
export function recordOf({ paths, namespace, kept }: ShimContext, id: string): RecordFile {
  return new RecordFile(paths.task(namespace, id), { atOnce: kept !== undefined });
}

/**
 * Takes up every task of this shim that earlier workers have made; those that they had not come to the end of making are undone.
 * A task that cannot be taken up is logged, and left as it is.
 */
export async function takeUpAll(context: ShimContext, containers: Containers): Promise<void> {
  const { paths, namespace, self, log } = context;
  const ids = await readdir(paths.tasks(namespace)).catch(() => []);
  const records = await Promise.all(
    ids.map((id) => readRecord(paths.task(namespace, id)).catch(() => undefined)),
  );
  const ours = records.filter(
    (record): record is TaskRecord =>
      record?.shim?.pid === self.pid && record.shim.startTime === self.startTime,
  );
  const strays = straysOf(self.pid, ours);
  const whenAlone = (): Promise<void> => gone(strays);
  await Promise.all(
    ours.map(async (record) => {
      try {
        await takeUp(context, containers, record, whenAlone);
      } catch (error) {
        log.error('a task could not be taken up', { id: record.id, error: messageOf(error) });
      }
    }),
  );
}

async function takeUp(
  context: ShimContext,
  containers: Containers,
  left: TaskRecord,
  whenAlone: () => Promise<void>,
): Promise<void> {
  const log = context.log.with({ id: left.id });
  const warn = (text: string): void => log.warn(text);
  // Nothing of a restore that has not come to be can be gone on with: Start says so.
  if (left.state === 'restorable' || left.takeUp?.made !== true) await clearTask(left, context.exec, warn);
  const record = recordOf(context, left.id);
  if (left.takeUp?.made !== true) {
    context.events.withdraw(left.id);
    record.remove();
    return;
  }
  const request = decodeCreate(left.takeUp);
  const options = await readOptions(request.options);
  context.logs.open(left.id, left.bundle);
  const parts = { request, options, spec: readSpec(left.bundle), record, log, left };
  containers.takeUp(await Container.takeUp(context, parts, whenAlone));
}

/** The guard's children that are programs of an earlier worker's, by name; no container's own process. */
function straysOf(guard: number, records: readonly TaskRecord[]): number[] {
  const own = new Set(records.flatMap(({ pid, execs }) => [pid, ...execs.map((exec) => exec.pid)]));
  const children = readFileSync(`/proc/${guard}/task/${guard}/children`, 'utf8').trim();
  const pids = children === '' ? [] : children.split(' ').map(Number);
  return pids.filter((pid) => !own.has(pid) && isAtWork(pid));
}

/** One that brings pages in is at work for as long as its container needs it. */
function isAtWork(pid: number): boolean {
  try {
    const name = readFileSync(`/proc/${pid}/comm`, 'utf8').trim();
    return PROGRAMS.has(name) && !readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('lazy-pages');
  } catch {
    return false;
  }
}

async function gone(pids: readonly number[]): Promise<void> {
  const deadline = performance.now() + ALONE_MS;
  while (pids.some(isAtWork) && performance.now() < deadline) await sleep(POLL_MS);
}

/** Names of what is kept for tasks that are no more. */
export function leftoversOf(names: readonly string[], containers: Containers): string[] {
  return names.filter((name) => {
    const [, id = ''] = name.split('/');
    return !containers.has(id);
  });
}
