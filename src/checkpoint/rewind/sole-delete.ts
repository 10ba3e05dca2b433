// A task that a rewind ends is deleted once. Its client, where one is attached, deletes it as well when it has ended; of two who
// delete one task containerd takes the bundle away by its path for each, and the task off its list by its name: for the later of
// them those are the next task's, which the rewind has made meanwhile. So a rewind leaves a mark in the task's run folder, by
// which the shim lets one Delete through, whoever sends it, and refuses the others in a way that has containerd leave all alone.
import { existsSync, readFileSync, readlinkSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Code, codeOf, FailedPrecondition, hasErrno } from '../../errors.ts';
import { isAlive, startTimeOf } from '../../sys/process.ts';

/** In the folder `tasks/<namespace>/<id>` of `daemon.run_dir`. */
const MARK = 'rewind';
type Phase = 'awaited' | 'deleted';
/** The stasisd that rewinds: its mark means nothing when it has ended, as what it has asked containerd for is given up with it. */
type Rewinder = readonly [pid: string, startTime: string];

/** Milliseconds after which nobody can be under way any more who has seen the end of the former task. */
const KEEP_MS = 30_000;
/** Milliseconds for containerd to take a bundle away, and between two looks at it. */
const GONE_MS = 3000;
const GONE_POLL_MS = 5;

/** What stasisd has of the mark. */
export interface SoleDelete extends Disposable {
  /**
   * Waits until containerd has taken the bundle of the deleted task away, which it does after that task is off its list: at once
   * where it was our Delete that was let through. Gives up after three seconds: then the next Create says what is in its way.
   */
  bundleGone(): Promise<void>;
}

/** Has the shim let one Delete of this task through, until it is disposed of. Does nothing where the shim is not ours. */
export function expectSoleDelete(runDir: string, namespace: string, id: string): SoleDelete {
  const folder = join(runDir, 'tasks', namespace, id);
  const places = placesOf(folder);
  write(folder, 'awaited', [String(process.pid), startTimeOf(process.pid)]);
  return {
    bundleGone: async () => {
      const deadline = performance.now() + GONE_MS;
      while (places.some((path) => existsSync(path)) && performance.now() < deadline)
        await sleep(GONE_POLL_MS);
    },
    [Symbol.dispose]: () => forgetSoleDelete(folder),
  };
}

/** The task that follows has come as far as nobody can mistake it for the former one, or there will be none. */
export function forgetSoleDelete(folder: string): void {
  rmSync(join(folder, MARK), { force: true });
}

/** Somebody means the task that follows. */
export function endSoleDelete(folder: string): void {
  if (read(folder)?.phase === 'deleted') forgetSoleDelete(folder);
}

/**
 * The shim's part: passes the first Delete of a task that is rewound on, and any of another one.
 * @param folder the task's run folder
 * @throws FailedPrecondition for those after it; what `work` throws, and then it was none
 */
export async function passSoleDelete<T>(folder: string, id: string, work: () => Promise<T>): Promise<T> {
  const mark = read(folder);
  if (mark === undefined) return work();
  const { phase, rewinder } = mark;
  if (phase === 'deleted')
    throw new FailedPrecondition(`container ${id} is being rewound, and its former task is deleted`, {
      subject: id,
      reason: 'being-rewound',
    });
  write(folder, 'deleted', rewinder);
  try {
    return await work();
  } catch (error) {
    if (codeOf(error) !== Code.NotFound) write(folder, 'awaited', rewinder); // else containerd does its part all the same
    throw error;
  }
}

/** The mark of a task that is being rewound; undefined for others. */
function read(folder: string): { readonly phase: Phase; readonly rewinder: Rewinder } | undefined {
  const path = join(folder, MARK);
  try {
    const [phase, pid = '', startTime = ''] = readFileSync(path, 'latin1').split(' ');
    if (!isAlive(Number(pid), startTime)) return undefined;
    const rewinder: Rewinder = [pid, startTime];
    if (phase === 'awaited') return { phase, rewinder };
    return Date.now() - statSync(path).mtimeMs < KEEP_MS ? { phase: 'deleted', rewinder } : undefined;
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}

function write(folder: string, phase: Phase, rewinder: Rewinder): void {
  try {
    writeFileSync(join(folder, MARK), [phase, ...rewinder].join(' '), { mode: 0o600 });
  } catch (error) {
    if (!hasErrno(error, 'ENOENT')) throw error; // no task of ours
  }
}

/** The bundle, as its task's record names it, with the work folder that containerd has for it, each also as it is on its way out. */
function placesOf(folder: string): string[] {
  try {
    const { bundle } = JSON.parse(readFileSync(join(folder, 'state.json'), 'utf8')) as { bundle: string };
    return [bundle, readlinkSync(join(bundle, 'work'))].flatMap((path) => [
      path,
      join(dirname(path), `.${basename(path)}`),
    ]);
  } catch {
    return []; // it is gone already
  }
}
