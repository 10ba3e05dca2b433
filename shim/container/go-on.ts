import { messageOf } from '../../src/errors.ts';
import type { Logger } from '../../src/log.ts';
import type { InitProcess } from '../process/init.ts';
import type { Accounting } from './accounting.ts';
import type { TaskBook } from './book.ts';
import type { ShimContext } from './context.ts';
import type { Execs } from './execs.ts';
import type { InitEnd } from './init-end.ts';
import type { Queue } from './queue.ts';
import { exitOf, type TaskRecord } from './record.ts';
import type { Streams } from './streams.ts';
import { hasStarted } from './take-up.ts';

/** A task that this worker has not made. */
export interface LeftTask {
  readonly id: string;
  readonly init: InitProcess;
  readonly execs: Execs;
  readonly end: InitEnd;
  readonly accounting: Accounting;
  readonly book: TaskBook;
  readonly streams: Streams;
  readonly queue: Queue;
  readonly context: Pick<ShimContext, 'events' | 'reaper'>;
  readonly onOom: () => void;
  readonly log: Logger;
}

/**
 * Goes on with a task as an earlier worker has written it down. What that one had begun is brought to an end in the task's queue.
 * @param whenAlone waits until no program of the earlier worker's is at work any more
 */
export async function goOn(task: LeftTask, left: TaskRecord, whenAlone: () => Promise<void>): Promise<void> {
  const { id, init, execs, end, accounting, book, streams, queue, context, onOom, log } = task;
  const { takeUp } = left;
  const expectation = context.reaper.expect();
  book.takeUp(left);
  const exit = left.exit === undefined ? undefined : exitOf(left.pid, left.exit);
  const started = init.state.name === 'created' && hasStarted(left);
  const runs = init.state.name !== 'created' || started;
  init.takeUp(left.pid, exit, streams.take(init, '', runs && exit === undefined));
  if (takeUp !== undefined && takeUp.cgroup !== '')
    await accounting.learnAt(takeUp.cgroup, onOom, BigInt(takeUp.oomKills ?? 0));
  if (started) {
    init.state.to('running');
    context.events.publish('start', { containerId: id, pid: init.pid });
  }
  const unfinished = execs.takeUp(left, expectation);
  if (exit !== undefined) end.order.initGone();
  else if (init.pid !== 0) end.watch(expectation);
  book.save();
  void queue
    .run(async () => {
      if (unfinished.length > 0 || (await isLeftFrozen(task))) await whenAlone();
      for (const execId of unfinished) execs.finish(execId, expectation);
      if (await isLeftFrozen(task)) await accounting.freezer().thaw();
    })
    .catch((error: unknown) => {
      log.error('what an earlier worker had begun could not be brought to an end', {
        error: messageOf(error),
      });
    })
    .finally(() => expectation.close());
}

/** A checkpoint was under way: nobody else freezes a container that is not paused. */
async function isLeftFrozen({ init, accounting }: LeftTask): Promise<boolean> {
  if (init.state.name !== 'running' || accounting.cgroup === undefined) return false;
  return accounting.freezer().isFrozen();
}
