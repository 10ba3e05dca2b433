import type { Config } from '../../src/config/config.ts';
import { InvalidArgument } from '../../src/errors.ts';
import type { Options } from '../../src/proto/gen/containerd/runc_options.ts';
import type { CreateTaskRequest } from '../../src/proto/gen/containerd/task.ts';

/** Of containerd.task.v2 and v3, which are served alike. */
const taskVersions = [0, 2, 3];

/**
 * What a Create asks for that cannot be had here. Left out without a word, the container would not be what its client thinks.
 * @param socket where this shim listens
 * @throws InvalidArgument naming the option, and where to say it instead
 */
export function refuseUnknown(
  request: Pick<CreateTaskRequest, 'parentCheckpoint'>,
  options: Options,
  { socket, config }: { readonly socket: string; readonly config: Config },
): void {
  const { criuPath, taskApiAddress, taskApiVersion } = options;
  if (criuPath !== '' && criuPath !== 'criu' && criuPath !== config.runtime.criu) {
    throw new InvalidArgument(`CriuPath = "${criuPath}" is not used: CRIU is ${config.runtime.criu}`, {
      subject: criuPath,
      remedy: `set criu = "${criuPath}" below [runtime] in the configuration`,
    });
  }
  // containerd calls the address itself, and starts no shim, where it knows the sandbox that the container is of.
  if (taskApiAddress !== '' && taskApiAddress.replace(/^(unix|ttrpc\+unix):\/\//, '') !== socket) {
    throw new InvalidArgument(`the task is to be made by ${taskApiAddress}, and this shim is ${socket}`, {
      subject: taskApiAddress,
      remedy: 'leave the address out, or name a sandbox that this containerd has made',
    });
  }
  if (!taskVersions.includes(taskApiVersion)) {
    throw new InvalidArgument(`version ${taskApiVersion} of the task API is not served, only 2 and 3`, {
      subject: String(taskApiVersion),
    });
  }
  if (request.parentCheckpoint !== '') {
    throw new InvalidArgument(
      `a restore takes no parent checkpoint (${request.parentCheckpoint}): the image names its own`,
      { subject: request.parentCheckpoint, remedy: 'leave it out' },
    );
  }
}
