import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Code, codeOf, hasErrno, Unavailable } from '../../src/errors.ts';
import { DeleteResponse, type TaskDefinition } from '../../src/proto/gen/containerd/task.ts';
import type { Context, Handlers } from '../../ttrpc/index.ts';
import type { Container } from '../container/container.ts';
import type { ShimContext } from '../container/context.ts';
import { AGAIN } from '../guard/messages.ts';
import { fromPrintfFormat } from '../lifecycle/answer.ts';
import { timestamp } from '../timestamp.ts';
import type { Containers } from './containers.ts';

const SIGKILL = 9;
const EMPTY = {};

type Tasks = Handlers<TaskDefinition>;

/**
 * Answers requests that a worker was given which has ended since. Those that ask, and those that may be done twice, are done anew;
 * of the others it is looked up whether they came to their end. What cannot be known is Unavailable, with what is the case now.
 */
export function answeringAgain(tasks: Tasks, context: ShimContext, containers: Containers): Tasks {
  const isAgain = ({ metadata }: Context): boolean => metadata.get(AGAIN) !== undefined;
  /** What the earlier worker had begun is brought to its end, or undone, in the task's queue. */
  const settled = async (id: string): Promise<Container | undefined> => {
    const container = containers.find(id);
    await container?.queue.share(async () => undefined);
    return container;
  };
  return {
    ...tasks,

    async create(request, call) {
      const made = isAgain(call) ? await settled(request.id) : undefined;
      return made === undefined ? tasks.create(request, call) : { pid: made.pid };
    },

    async start(request, call) {
      const container = isAgain(call) ? await settled(request.id) : undefined;
      if (container === undefined) return tasks.start(request, call);
      const { state, pid } = container.process(request.execId);
      const isToStart = state.name === 'created' || state.name === 'restorable';
      return isToStart ? tasks.start(request, call) : { pid };
    },

    async delete(request, call) {
      if (!isAgain(call)) return tasks.delete(request, call);
      const { id, execId } = request;
      const container = await settled(id);
      if (container === undefined) return answerOnDisk(context, id) ?? tasks.delete(request, call);
      const ended = execId === '' ? undefined : container.findDeleted(execId);
      if (ended === undefined || container.execs.has(execId)) return tasks.delete(request, call);
      return { pid: ended.pid, exitStatus: ended.exit?.status ?? 0, exitedAt: timestamp(ended.exit) };
    },

    async exec(request, call) {
      const known = isAgain(call) && containers.find(request.id)?.execs.has(request.execId) === true;
      return known ? EMPTY : tasks.exec(request, call);
    },

    async pause(request, call) {
      const done = isAgain(call) && (await settled(request.id))?.isPaused === true;
      return done ? EMPTY : tasks.pause(request, call);
    },

    async resume(request, call) {
      const done = isAgain(call) && (await settled(request.id))?.init.state.name === 'running';
      return done ? EMPTY : tasks.resume(request, call);
    },

    async kill(request, call) {
      if (!isAgain(call)) return tasks.kill(request, call);
      const { id, execId, signal } = request;
      if (signal !== SIGKILL) {
        const process = containers.get(id).process(execId);
        throw new Unavailable(
          `the shim's worker ended while it sent signal ${signal}: whether it arrived is not known, and ${process.id} is ${process.state.name}`,
          { subject: id },
        );
      }
      try {
        return await tasks.kill(request, call);
      } catch (error) {
        if (codeOf(error) === Code.NotFound) return EMPTY; // the first one arrived
        throw error;
      }
    },

    async checkpoint(request, call) {
      if (!isAgain(call)) return tasks.checkpoint(request, call);
      const state = (await settled(request.id))?.init.state.name ?? 'gone';
      throw new Unavailable(
        `the shim's worker ended while it took the checkpoint, of which nothing counts; ${request.id} is ${state}`,
        { subject: request.id },
      );
    },
  };
}

/** What the earlier worker left for the shim binary's `delete` when it had deleted the task. */
function answerOnDisk({ paths, namespace }: ShimContext, id: string): DeleteResponse | undefined {
  try {
    const text = readFileSync(join(paths.task(namespace, id), 'deleted'), 'utf8');
    return DeleteResponse.decode(fromPrintfFormat(text));
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}
