import { join } from 'node:path';
import { takeInstant, type InstantTarget, type InstantTools } from '../../src/checkpoint/instant.ts';
import { stockPlan } from '../../src/checkpoint/stock.ts';
import type { Config } from '../../src/config/config.ts';
import { FailedPrecondition } from '../../src/errors.ts';
import type { CheckpointTaskRequest } from '../../src/proto/gen/containerd/task.ts';
import { makeFolder } from '../../src/sys/make-folder.ts';
import { onDisk } from '../../src/sys/thread-pool.ts';
import type { Container } from './container.ts';
import { readCheckpointOptions } from '../../src/containerd/task-options.ts';
import { planStockDisk, recordStockDisk } from './stock-disk.ts';

/** What the engine needs to know of a container; undefined while it has no process. */
export function instantTarget(container: Container): InstantTarget | undefined {
  const { id, pid, init } = container;
  const { cgroup } = container.accounting;
  if (pid === 0 || init.exit !== undefined || cgroup === undefined) return undefined;
  const missing = (): boolean => container.fill?.isMissing === true;
  return { id, pid, cgroup, runtime: container.runtime.door, missing };
}

/** Runs alone in the container's queue, once its memory is all there: a dump would leave out what is still missing. */
export async function whenFilled<T>(container: Container, run: () => Promise<T>): Promise<T> {
  await container.fill?.ended;
  return container.queue.run(run);
}

/**
 * A stock client's checkpoint: CRIU's files, flat, in the folder that it names, and a snapshot of the disk where that is on our
 * snapshotter. No options mean that the task runs on.
 * A dump that fails leaves the task as it was, and CRIU's own words are the error.
 */
export function checkpointTask(
  container: Container,
  request: CheckpointTaskRequest,
  tools: InstantTools,
  config: Config,
  signal: AbortSignal,
): Promise<void> {
  const options = readCheckpointOptions(request.options);
  return whenFilled(container, async () => {
    container.init.state.require('checkpoint');
    const target = instantTarget(container);
    if (target === undefined) throw new FailedPrecondition(`container ${container.id} has no process`);
    const workDir = join(container.bundle, 'work');
    const disk = await planStockDisk(config, container.namespace, container.id, container.disk.mounts);
    const timeoutMs = config.checkpoint.timeout * 1000;
    const plan = stockPlan(request.path, options, {
      ...{ workDir, timeoutMs },
      ...(disk === undefined ? {} : { disk: disk.plan }),
    });
    await onDisk(() => makeFolder(plan.memory?.workDir ?? workDir, 0o711)); // which the client may have named
    await takeInstant(target, plan, tools, signal);
    if (disk === undefined || plan.memory === undefined) return;
    let recorded = false;
    try {
      await recordStockDisk(config, plan.memory.imageDir, disk, options.imagePath === '');
      recorded = true;
    } finally {
      // Nobody would ever find it again.
      if (!recorded) await tools.zfs.destroyIdempotent(disk.plan.snapshot);
    }
  });
}
