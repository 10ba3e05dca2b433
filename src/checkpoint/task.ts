import { setTimeout as sleep } from 'node:timers/promises';
import { findTask, type NamespaceClient } from '../containerd/client.ts';
import { Code, codeOf, DeadlineExceeded } from '../errors.ts';
import { Status } from '../proto/gen/containerd/task_types.ts';
import type { Host } from './host.ts';

const SIGKILL = 9;
const END_TIMEOUT_MS = 10_000;
/** containerd takes some hundred milliseconds to delete a task on a busy host. */
const GONE_TIMEOUT_MS = 3000;
const GONE_POLL_MS = 50;

/**
 * Runs `work` while the task stands paused. A task that was running runs on afterwards, whatever happens,
 * unless `work` calls `stays`; one that its user had paused stays paused.
 */
export async function withPausedTask<T>(
  host: Host,
  namespace: string,
  container: string,
  work: (stays: (this: void) => void) => Promise<T>,
): Promise<T> {
  const { tasks } = host.containerd.namespace(namespace);
  const before = (await tasks.get({ containerId: container, execId: '' })).process;
  if (before?.status === Status.PAUSED) return work(() => undefined);
  await tasks.pause({ containerId: container });
  let resume = true;
  try {
    return await work(() => (resume = false));
  } finally {
    if (resume) await tasks.resume({ containerId: container });
  }
}

/** Kills all of a task and waits until containerd has seen its end. The task stays, stopped. */
export async function endTask(
  host: Pick<Host, 'containerd'>,
  namespace: string,
  container: string,
): Promise<void> {
  const { tasks } = host.containerd.namespace(namespace);
  const ended = tasks.wait({ containerId: container, execId: '' }, { timeoutMs: END_TIMEOUT_MS });
  ended.catch(() => undefined); // its client may delete the task before we come to wait
  try {
    await tasks.kill({ containerId: container, execId: '', signal: SIGKILL, all: true });
    // A frozen process dies when it thaws (cgroup v1); it runs no instruction of its own before that.
    await tasks.resume({ containerId: container }).catch(() => undefined); // was not paused, or is gone
  } catch (error) {
    if (codeOf(error) !== Code.NotFound) throw error;
  }
  try {
    await ended;
  } catch (error) {
    if (codeOf(error) === Code.NotFound) return;
    throw new DeadlineExceeded(
      `container ${container} did not end within ${END_TIMEOUT_MS / 1000} s of SIGKILL`,
      {
        subject: container,
        cause: error,
        reason: 'did-not-end',
        remedy: 'a process of it may hang in the kernel: see its state in /proc/<pid>/stack',
      },
    );
  }
}

/** Ends a task if it runs and deletes it, so that the container can have a new one. */
export async function removeTask(
  host: Pick<Host, 'containerd'>,
  namespace: string,
  container: string,
): Promise<void> {
  const client = host.containerd.namespace(namespace);
  for (let again = true; ; again = false) {
    const task = await findTask(client, container);
    if (task === undefined) return forgetTask(client, container);
    // One that is still to be restored has no process that could end.
    const unborn = task.status === Status.CREATED && task.pid === 0;
    // It has nothing that could be killed; its shim is told that it is this one that is meant: sole-delete.ts.
    if (unborn)
      await client.tasks
        .kill({ containerId: container, execId: '', signal: SIGKILL, all: true })
        .catch(() => undefined);
    else if (task.status !== Status.STOPPED) await endTask(host, namespace, container);
    try {
      await client.tasks.delete({ containerId: container });
      return;
    } catch (error) {
      if (codeOf(error) === Code.NotFound) return;
      // Delete waits for a Start that is under way, and then the task may run.
      if (unborn && again) continue;
      if (await goesAway(client, container)) return;
      throw error;
    }
  }
}

/**
 * A delete whose client went away is done by the shim, but not by containerd: of such a task it says that it is not there, and
 * lets nobody make another, until it is asked once more to delete it.
 */
async function forgetTask(client: NamespaceClient, container: string): Promise<void> {
  await client.tasks.delete({ containerId: container }).catch(async (error: unknown) => {
    if (codeOf(error) === Code.NotFound) return;
    // Another client's delete has just come to its end, and has closed the connection to the shim: containerd answers with that.
    if (!(await goesAway(client, container))) throw error;
  });
}

/** Whether a task that cannot be deleted is gone a little later: another client was deleting it. */
async function goesAway(client: NamespaceClient, container: string): Promise<boolean> {
  const deadline = performance.now() + GONE_TIMEOUT_MS;
  for (;;) {
    if ((await findTask(client, container)) === undefined) return true;
    if (performance.now() >= deadline) return false;
    await sleep(GONE_POLL_MS);
  }
}
