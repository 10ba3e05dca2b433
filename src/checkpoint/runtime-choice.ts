import { readOptions } from '../containerd/task-options.ts';
import { InvalidArgument, messageOf } from '../errors.ts';
import { assertOwnCgroup } from '../oci/crun-cgroup.ts';
import type { Container } from '../proto/gen/containerd/containers.ts';
import type { Options } from '../proto/gen/containerd/runc_options.ts';
import type { Host } from './host.ts';

/**
 * The container's own runtime options, in whichever form its client gave them: the same OCI runtime restores it that ran it.
 * @throws InvalidArgument where they cannot be read any more, as the file that a client named is gone
 */
export async function runtimeOptionsOf(container: Container): Promise<Options> {
  return readOptions(container.runtime?.options).catch((error: unknown) => {
    throw new InvalidArgument(`the runtime options of container ${container.id}: ${messageOf(error)}`, {
      subject: container.id,
      cause: error,
    });
  });
}

/** The OCI runtime of a container, a path or a name. @throws InvalidArgument as `runtimeOptionsOf` */
export async function runtimeBinaryOf({ config }: Host, container: Container): Promise<string> {
  const { binaryName } = await runtimeOptionsOf(container);
  return binaryName || config.runtime.oci;
}

/**
 * Finds out, before a container is stopped for a rewind, what its OCI runtime would refuse afterwards.
 * @throws InvalidArgument, FailedPrecondition
 */
export async function assertRestorable(host: Host, container: Container): Promise<void> {
  // The shim may find one that is not on stasisd's PATH.
  const found = await host.runtimes.get(await runtimeBinaryOf(host, container)).catch(() => undefined);
  if (found?.name === 'crun') assertOwnCgroup(container.id);
}
