import type { InstantTools } from '../../src/checkpoint/instant.ts';
import { ProcessDetails } from '../../src/proto/gen/containerd/runc_options.ts';
import {
  DeleteResponse,
  type CreateTaskRequest,
  type StateResponse,
  type TaskDefinition,
} from '../../src/proto/gen/containerd/task.ts';
import { Status } from '../../src/proto/gen/containerd/task_types.ts';
import { expectQuickMoves } from '../../src/sys/cgroup-lock.ts';
import { endProcessesAt } from '../../src/sys/process-tree.ts';
import { version } from '../../src/version.ts';
import type { Context, Handlers } from '../../ttrpc/index.ts';
import { wantsCheckpointable, withoutIoUring } from '../container/checkpointable.ts';
import { editConfig } from '../container/config-file.ts';
import { checkpointTask } from '../container/checkpoint.ts';
import { Container } from '../container/container.ts';
import type { ShimContext } from '../container/context.ts';
import { readJson, readOptions } from '../../src/containerd/task-options.ts';
import { recordOf } from '../worker/take-up.ts';
import { refuseUnknown } from '../container/refused.ts';
import { cgroupOf, readSpec } from '../container/spec.ts';
import { assertNobodyIn } from '../container/cgroup-check.ts';
import { asPrintfArgument } from '../lifecycle/answer.ts';
import { isDelete } from '../lifecycle/clear.ts';
import { clearFormer } from '../lifecycle/dead.ts';
import { checkName } from '../paths.ts';
import { timestamp } from '../timestamp.ts';
import { answeringAgain } from './again.ts';
import { withKnownErrors } from './errors.ts';
import { Reloads } from './reloads.ts';
import { deletingOnce } from './rewound.ts';
import type { Containers } from './containers.ts';

/** What the service tells the program around it. */
export interface Lifecycle {
  /** A container is about to come. */
  busy(): void;
  /** One has gone, or did not come. */
  idle(): void;
  /** A client asked the shim to leave, which it does when nothing is left. */
  leave(): void;
}

const EMPTY = {};
/** Of the five seconds that containerd gives a Delete. */
const BREAK_OFF_MS = 2000;

/** containerd's Task service: requests to containers, and containers to answers. */
export function taskService(
  context: ShimContext,
  containers: Containers,
  lifecycle: Lifecycle,
  tools: InstantTools,
): Handlers<TaskDefinition> {
  const reloads = new Reloads();
  const handlers: Handlers<TaskDefinition> = {
    async create(request) {
      lifecycle.busy();
      expectQuickMoves();
      try {
        const container = await containers.add(
          request.id,
          () => create(context, request),
          // The OCI runtime and all that it has started work there.
          () => endProcessesAt(request.bundle, { isSpared: isDelete, timeoutMs: BREAK_OFF_MS }),
        );
        return { pid: container.pid };
      } catch (error) {
        lifecycle.idle();
        throw error;
      }
    },

    async start({ id, execId }) {
      return { pid: await containers.get(id).start(execId) };
    },

    async delete({ id, execId }) {
      // Its client has given Create up, and containerd deletes what may have come of it.
      if (containers.find(id) === undefined && execId === '') await containers.breakOff(id, BREAK_OFF_MS);
      const container = containers.get(id);
      const process = await container.delete(execId, () => {
        const answer = answerOf(container.init);
        context.events.publish('delete', { containerId: id, ...answer, id: '' });
        return asPrintfArgument(answer);
      });
      if (execId === '') {
        containers.remove(id);
        context.logs.close(id);
        lifecycle.idle();
      }
      return answerOf(process);
    },

    async state({ id, execId }): Promise<StateResponse> {
      const container = containers.get(id);
      const process = container.process(execId);
      const { stdin, stdout, stderr, terminal } = process.stdio;
      return {
        id: process.id,
        bundle: container.bundle,
        pid: process.pid,
        status: statusOf(container, process.status),
        stdin,
        stdout,
        stderr,
        terminal,
        exitStatus: process.exit?.status ?? 0,
        exitedAt: timestamp(process.exit),
        execId: '',
      };
    },

    async pids({ id }, { connection }) {
      const container = containers.get(id);
      const isReload = reloads.isReload(connection);
      const pids = await container.pids();
      if (isReload && pids.length === 0) pids.push(container.pid);
      const execs = new Map([...container.execs.values()].map((exec) => [exec.pid, exec.id]));
      // A task that waits for its restore has no process yet; an empty answer would make containerd delete it.
      const all = container.init.state.name === 'restorable' ? [0] : pids;
      return { processes: all.map((pid) => ({ pid, info: detailsOf(execs.get(pid)) })) };
    },

    async exec(request) {
      checkName('exec id', request.execId);
      expectQuickMoves(); // its Start comes next
      containers.get(request.id).exec(request);
      return EMPTY;
    },

    async resizePty({ id, execId, width, height }) {
      containers.get(id).process(execId).resize(width, height);
      return EMPTY;
    },

    async closeIO({ id, execId }) {
      containers.get(id).process(execId).io?.closeStdin();
      return EMPTY;
    },

    async kill({ id, execId, signal, all }) {
      await containers.get(id).kill(execId, signal, all);
      return EMPTY;
    },

    async pause({ id }) {
      await containers.get(id).pause();
      return EMPTY;
    },

    async resume({ id }) {
      await containers.get(id).resume();
      return EMPTY;
    },

    async checkpoint(request, { signal }: Context) {
      await checkpointTask(containers.get(request.id), request, tools, context.config, signal);
      return EMPTY;
    },

    async update({ id, resources }) {
      await containers.get(id).update(JSON.stringify(readJson(resources, 'resources')));
      return EMPTY;
    },

    async wait({ id, execId }, { signal }: Context) {
      const process = containers.get(id).process(execId);
      await process.wait(signal);
      return { exitStatus: process.exit?.status ?? 0, exitedAt: timestamp(process.exit) };
    },

    async stats({ id }) {
      return { stats: await containers.get(id).stats() };
    },

    async connect({ id }, { connection }) {
      // A containerd that died in a Delete still has the bundle. Told of no error, 1.6 lists a task that neither is there nor
      // can be made anew; with a shim of its own, the task's end would be seen by the connection.
      const taskPid = reloads.isReload(connection)
        ? (await containers.getMade(id)).pid
        : (containers.find(id)?.pid ?? 0);
      return { shimPid: context.self.pid, taskPid, version };
    },

    async shutdown() {
      lifecycle.leave();
      return EMPTY;
    },
  };
  const settled = answeringAgain(reloads.watch(handlers), context, containers);
  return withKnownErrors(deletingOnce(settled, context));
}

async function create(context: ShimContext, request: CreateTaskRequest): Promise<Container> {
  await clearFormer(context.paths, context.namespace, request.id, context.exec);
  const options = await readOptions(request.options);
  refuseUnknown(request, options, context);
  const record = recordOf(context, request.id);
  const spec = readSpec(request.bundle);
  // `ctr containers restore` gives a copy the cgroup of its source, which may run.
  const restores = request.checkpoint !== '' || options.criuImagePath !== '';
  if (!restores) assertNobodyIn(cgroupOf(spec.cgroupsPath), request.id);
  if (wantsCheckpointable(spec.annotations)) editConfig(request.bundle, withoutIoUring);
  const log = context.log.with({ id: request.id });
  context.logs.open(request.id, request.bundle);
  try {
    return await Container.create(context, { request, options, spec, record, log });
  } catch (error) {
    context.logs.close(request.id);
    throw error;
  }
}

/** What Delete says of a process. */
export function answerOf({ pid, exit }: { pid: number; exit: Container['init']['exit'] }): DeleteResponse {
  return { pid, exitStatus: exit?.status ?? 0, exitedAt: timestamp(exit) };
}

/** While the container as a whole is paused, so is each of its processes. */
function statusOf(container: Container, own: Status): Status {
  return container.isPaused ? Status.PAUSED : own;
}

function detailsOf(execId: string | undefined) {
  if (execId === undefined) return undefined;
  const value = Buffer.from(ProcessDetails.encode({ execId }).finish());
  return { typeUrl: 'containerd.runc.v1.ProcessDetails', value };
}
