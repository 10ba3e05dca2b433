import { constants, type FileHandle, open, stat } from 'node:fs/promises';
import type { NamespaceClient } from '../containerd/client.ts';
import type { Container } from '../proto/gen/containerd/containers.ts';
import type { Mount } from '../proto/gen/containerd/mount.ts';
import { Options } from '../proto/gen/containerd/runc_options.ts';
import type { Process } from '../proto/gen/containerd/task_types.ts';
import type { Any } from '../proto/gen/google/protobuf/any.ts';
import { giveImage, innerRoot } from './image-owner.ts';
import { runtimeOptionsOf } from './runtime-choice.ts';
import { decodeSpec } from './spec.ts';

const optionsTypeUrl = 'containerd.runc.v1.Options';

/** Standard streams of a task, as containerd's clients name them. */
export interface TaskIo {
  readonly terminal: boolean;
  readonly stdin: string;
  readonly stdout: string;
  readonly stderr: string;
}

export interface StartedTask {
  readonly pid: number;
  readonly createNs: number;
  readonly startNs: number;
}

export interface StartOptions {
  readonly mounts: Mount[];
  readonly io: TaskIo;
  readonly imageDir: string | undefined;
  /** CRIU's work folder; left out, one in the bundle. */
  readonly workDir?: string | undefined;
  /**
   * The last moment at which it can be let be: what this throws deletes the task. Of an image no more than the small files is
   * read before.
   */
  readonly beforeStart?: () => void | Promise<void>;
}

/** The streams of a former task that still lead somewhere: FIFOs whose client has removed them do not. */
export async function ioOf(task: Process | undefined, terminal: boolean): Promise<TaskIo> {
  const alive = async (path: string | undefined): Promise<string> => {
    if (path === undefined || path === '' || path.includes('://')) return path ?? '';
    return (await stat(path).catch(() => undefined)) === undefined ? '' : path;
  };
  return {
    terminal,
    stdin: await alive(task?.stdin),
    stdout: await alive(task?.stdout),
    stderr: terminal ? '' : await alive(task?.stderr),
  };
}

/**
 * Creates and starts a container's task. With an image folder it is restored from there, else started anew.
 * A task that could not be started is deleted again.
 */
export async function startTask(
  client: NamespaceClient,
  container: Container,
  options: StartOptions,
): Promise<StartedTask> {
  const begin = process.hrtime.bigint();
  const { tasks } = client;
  await using _readers = await holdFifos([options.io.stdout, options.io.stderr]);
  if (options.imageDir !== undefined)
    await giveImage(options.imageDir, decodeSpec(container.spec, container.id));
  const created = await tasks.create({
    containerId: container.id,
    rootfs: options.mounts,
    ...options.io,
    checkpoint: undefined,
    options: await taskOptions(container, options.imageDir, options.workDir),
    runtimePath: '',
  });
  const between = process.hrtime.bigint();
  try {
    await options.beforeStart?.();
    const started = await tasks.start({ containerId: container.id, execId: '' });
    const end = process.hrtime.bigint();
    return {
      pid: started.pid || created.pid,
      createNs: Number(between - begin),
      startNs: Number(end - between),
    };
  } catch (error) {
    await tasks.kill({ containerId: container.id, execId: '', signal: 9, all: true }).catch(() => undefined);
    await tasks.delete({ containerId: container.id }).catch(() => undefined); // reported is why it did not start
    throw error;
  }
}

/**
 * Holds FIFOs open at both ends until the task has its own: containerd's own shim opens its end for writing first, and waits
 * for a reader, which is not there any more when the client (`ctr run -d`, say) has left.
 */
async function holdFifos(paths: readonly string[]): Promise<AsyncDisposable> {
  const held: FileHandle[] = [];
  for (const path of new Set(paths)) {
    if (!(await stat(path).catch(() => undefined))?.isFIFO()) continue;
    // With both ends it cannot block, fifo(7). One that is removed meanwhile is the task's to complain of.
    const fifo = await open(path, constants.O_RDWR | constants.O_NONBLOCK).catch(() => undefined);
    if (fifo !== undefined) held.push(fifo);
  }
  return {
    [Symbol.asyncDispose]: async () => {
      for (const fifo of held) await fifo.close();
    },
  };
}

/** The container's own runtime options, with the image to restore from. */
async function taskOptions(
  container: Container,
  imageDir: string | undefined,
  workDir: string | undefined,
): Promise<Any | undefined> {
  if (imageDir === undefined) return undefined; // containerd then takes the container's
  const options = await runtimeOptionsOf(container);
  // Its streams belong to its own root, as clients ask for when they start a container with a user namespace.
  const owner = options.ioUid === 0 ? innerRoot(decodeSpec(container.spec, container.id)) : undefined;
  const io = owner === undefined ? {} : { ioUid: owner.uid, ioGid: owner.gid };
  return {
    typeUrl: optionsTypeUrl,
    value: Buffer.from(
      Options.encode({
        ...{ ...options, ...io, criuImagePath: imageDir },
        ...(workDir === undefined ? {} : { criuWorkPath: workDir }),
      }).finish(),
    ),
  };
}
