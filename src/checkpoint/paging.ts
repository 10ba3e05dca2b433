import { findContainer } from '../containerd/client.ts';
import { FailedPrecondition, messageOf } from '../errors.ts';
import { Options } from '../proto/gen/containerd/runc_options.ts';
import type { Container } from '../proto/gen/containerd/containers.ts';
import type { CheckpointEntry } from './entry.ts';
import { type Host, runtimeName } from './host.ts';
import { innerRoot } from './image-owner.ts';
import { decodeSpec } from './spec.ts';

/** When a restored container's memory is read: before it runs, while it runs, or as is best. */
export type Paging = 'auto' | 'eager' | 'lazy';

const MIB = 1024 * 1024;

/** What a host needs to bring memory in while a container runs. */
type LazyHost = Pick<Host, 'config' | 'criu' | 'runtimes'>;

/**
 * Whether a restore brings the memory in while the container runs.
 * @throws FailedPrecondition where that is insisted on and not possible, naming why
 */
export async function isLazy(
  host: LazyHost,
  container: Container,
  entry: CheckpointEntry,
  paging: Paging,
): Promise<boolean> {
  if (paging === 'eager') return false;
  const why =
    entry.memory === 'image' ? undefined : `checkpoint ${entry.name} of ${entry.container} holds no memory`;
  if (paging === 'lazy') {
    const obstacle = why ?? (await obstacleToLazy(host, container));
    if (obstacle !== undefined) throw notLazy(container.id, obstacle);
    return true;
  }
  const from = host.config.checkpoint.lazy_from * MIB;
  // In this order: small images are not to wait for a probe.
  if (why !== undefined || from === 0 || entry.memoryBytes < from) return false;
  return (await obstacleToLazy(host, container)) === undefined;
}

/** For a checkpoint that is still to be taken. @throws FailedPrecondition as `isLazy` */
export async function assertLazyBefore(host: Host, namespace: string, id: string): Promise<void> {
  const container = await findContainer(host.containerd.namespace(namespace), id);
  if (container === undefined) return; // which is said where the checkpoint is taken, or found
  const obstacle = await obstacleToLazy(host, container);
  if (obstacle !== undefined) throw notLazy(id, obstacle);
}

function notLazy(container: string, why: string): FailedPrecondition {
  return new FailedPrecondition(
    `the memory of container ${container} cannot be brought in while it runs: ${why}`,
    {
      subject: container,
      reason: 'lazy-not-possible',
      remedy: 'leave out --lazy: all of the memory is then read before the container runs',
    },
  );
}

/** What keeps this container from being restored so; undefined where nothing does. */
async function obstacleToLazy(host: LazyHost, container: Container): Promise<string | undefined> {
  const { name = '', options } = container.runtime ?? {};
  if (name !== runtimeName) return `its runtime is ${name}, not ${runtimeName}`;
  // CRIU opens the userfaultfd within the user namespace, which the kernel allows to the host's root alone.
  if (innerRoot(decodeSpec(container.spec, container.id)) !== undefined) return 'it has a user namespace';
  const isRunc = options?.typeUrl.endsWith('containerd.runc.v1.Options') === true;
  return hostObstacle(host, isRunc ? Options.decode(options.value).binaryName : '');
}

/**
 * What keeps this host from restoring so; undefined where nothing does. The answers are kept by those who are asked.
 * @param binary OCI runtime, where it is not the configured one
 */
export async function hostObstacle(host: LazyHost, binary = ''): Promise<string | undefined> {
  try {
    const runtime = await host.runtimes.get(binary || host.config.runtime.oci);
    if (runtime.name !== 'runc') return `${runtime.name} has no lazy restore, only runc has`;
    if (await host.criu.has('uffd-noncoop')) return undefined;
    return "this kernel's userfaultfd cannot follow a process that knows nothing of it, or may not be used";
  } catch (error) {
    return messageOf(error);
  }
}
