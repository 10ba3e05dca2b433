// The first half of a rewind: the task that runs is ended, with an image of it to come back from.
import {
  findTask,
  isContainerdAway,
  isShimSilent,
  type NamespaceClient,
  silentShim,
} from '../../containerd/client.ts';
import { Code, codeOf, messageOf } from '../../errors.ts';
import { SessionPolicy } from '../../proto/gen/stasis/engine.ts';
import { readImage } from '../../criu/image.ts';
import { isAlive, startTimeOf } from '../../sys/process.ts';
import type { Host, Report } from '../host.ts';
import { isRunning } from './notes.ts';
import { type Engine, findEngine } from '../shim-client.ts';
import { fitsInStaging, openStage, removeStage, type Stage } from '../staging.ts';
import type { Rewinding } from './rewinding.ts';
import type { Note } from './note.ts';

/** For a shim that has just answered to say which processes there are. */
const LIST_TIMEOUT_MS = 10_000;

/** How often in all the present state is dumped where the shim's worker ends meanwhile, and another one follows it. */
const DUMPS = 3;

/** A running task that was ended. */
export interface Stopped {
  /** Folder of its image; undefined where none could be made. */
  readonly image: string | undefined;
}

/**
 * Ends a running task, keeping an image of it on the tmpfs, from which it comes back if the restore fails.
 * Where no such image can be made the task comes back anew on its present disk.
 * @returns undefined where none runs
 * @throws Unavailable, while it still runs, where the shim does not answer, or its worker ends again and again
 */
export async function stop(
  host: Host,
  rewinding: Rewinding,
  note: Note,
  report: Report,
): Promise<Stopped | undefined> {
  const { namespace, record, task, signal } = rewinding;
  if (!isRunning(task)) return undefined;
  await allThere(host, { namespace, record, signal }, report);
  const client = host.containerd.namespace(namespace);
  const startTime = startTimeOf(task.pid);
  const cutOff: Stage[] = [];
  for (;;) {
    const listed = pidsOf(client, record.id);
    const found = findEngine(host.config.daemon.run_dir, namespace, record.id);
    for (const begun of [listed, found]) begun.catch(() => undefined); // they are waited for below
    const stage = await openStage(host.staging).catch(async (error: unknown) => {
      (await found.catch(() => undefined))?.close();
      throw error;
    });
    note.staged(stage);
    const engine = await found;
    try {
      const pids = await listed;
      const fits = engine !== undefined && (await fitsInStaging(host.staging, pids));
      return { image: fits ? await dumpAndEnd(host, engine, record.id, stage) : undefined };
    } catch (error) {
      if (isContainerdAway(error) || isShimSilent(error)) throw error; // while nothing is lost yet
      if (isLost(error)) {
        cutOff.push(stage);
        // The worker that follows answers once it has taken back what was begun, or has ended the task where the image was whole.
        await findTask(client, record.id).catch(() => undefined);
      }
      const runs = isAlive(task.pid, startTime);
      if (runs && isLost(error)) {
        signal.throwIfAborted();
        if (cutOff.length < DUMPS) continue;
        throw error;
      }
      const image = runs ? undefined : await firstWhole(cutOff, note);
      if (image === undefined)
        report.warn(
          `the present state of ${record.id} cannot be kept while it is restored: ${messageOf(error)}`,
        );
      return { image };
    } finally {
      engine?.close();
      for (const { folder } of cutOff.filter((other) => other.folder !== note.stage))
        host.later('remove what a dump has left', removeStage(folder));
    }
  }
}

/** The image of a dump that had come to its end, but for its answer. */
async function firstWhole(stages: readonly Stage[], note: Note): Promise<string | undefined> {
  for (const stage of stages) {
    if ((await readImage(stage.imageDir)).missing.length > 0) continue;
    note.staged(stage);
    return stage.imageDir;
  }
  return undefined;
}

/** Whether a shim's answer did not come, as its worker has ended. A shim without a guard has ended then, and its containers with it. */
function isLost(error: unknown): boolean {
  return codeOf(error) === Code.Unavailable && !isContainerdAway(error) && !isShimSilent(error);
}

/** @returns the folder of the image; undefined where none was made */
async function dumpAndEnd(
  host: Host,
  { calls }: Engine,
  id: string,
  stage: Stage,
): Promise<string | undefined> {
  const answer = await calls.checkpoint({
    id,
    imageDir: stage.imageDir,
    workDir: stage.workDir,
    snapshot: '',
    properties: {},
    syncPath: '',
    exit: true,
    requireMemory: true,
    timeoutMs: BigInt(host.config.checkpoint.timeout) * 1000n,
    parentPath: '',
    sessions: SessionPolicy.SESSIONS_LEAVE, // they end with the task, and do not come back with it
  });
  return answer.memory ? stage.imageDir : undefined;
}

/** @throws Unavailable where the shim does not answer */
async function pidsOf(client: NamespaceClient, containerId: string): Promise<number[]> {
  try {
    const { processes } = await client.tasks.listPids({ containerId }, { timeoutMs: LIST_TIMEOUT_MS });
    return processes.map(({ pid }) => pid);
  } catch (error) {
    throw codeOf(error) === Code.DeadlineExceeded ? silentShim(containerId) : error;
  }
}

/** What is still being brought in cannot be dumped; what will not come need not be. */
async function allThere(
  host: Host,
  { namespace, record, signal }: Pick<Rewinding, 'namespace' | 'record' | 'signal'>,
  report: Report,
): Promise<void> {
  try {
    await host.fills.whenFilled(namespace, record.id, report, signal);
  } catch (error) {
    signal.throwIfAborted();
    report.warn(messageOf(error));
  }
}
