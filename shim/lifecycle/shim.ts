import { rm } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { createServer } from 'node:net';
import { dirname } from 'node:path';
import type { Config } from '../../src/config/config.ts';
import { messageOf } from '../../src/errors.ts';
import { createLogger } from '../../src/log.ts';
import { surviveMistakes } from '../../src/mistakes.ts';
import { RuntimeBinaries } from '../../src/oci/binary.ts';
import { TaskDefinition } from '../../src/proto/gen/containerd/task.ts';
import { EngineDefinition } from '../../src/proto/gen/stasis/engine.ts';
import { Readiness } from '../../src/sys/epoll.ts';
import { expectQuickMoves } from '../../src/sys/cgroup-lock.ts';
import { listenPrivately } from '../../src/sys/listen.ts';
import { releaseProgramPages } from '../../src/sys/program-pages.ts';
import { Server } from '../../ttrpc/index.ts';
import type { ShimArguments } from '../arguments.ts';
import type { ShimContext } from '../container/context.ts';
import { thisProcess } from '../container/record.ts';
import { OwnConnection, type Courier } from '../events/courier.ts';
import { EventJournal } from '../events/journal.ts';
import { EventQueue, type Events } from '../events/queue.ts';
import { ContainerdSink } from '../events/sink.ts';
import { CriuPageServers } from '../../src/pages/criu-page-server.ts';
import type { Paths } from '../paths.ts';
import { execWith } from '../../src/sys/spawned-command.ts';
import { ChildReaper } from '../reaper/reaper.ts';
import { Containers } from '../service/containers.ts';
import { engineOf, instantTools } from '../service/engine.ts';
import { taskService } from '../service/task-service.ts';
import { DirectAnswers } from '../worker/direct-answers.ts';
import { GuardedCourier } from '../worker/guarded-courier.ts';
import { GuardedReaper } from '../worker/guarded-reaper.ts';
import type { GuardLink } from '../worker/link.ts';
import { leftoversOf, takeUpAll } from '../worker/take-up.ts';
import { Answers } from './answers.ts';
import { announce, retract } from './claim.ts';
import { withClearLock } from './clear-lock.ts';
import { clearDead, hasDead } from './dead.ts';
import { IdleTimer } from './idle.ts';
import { LogSink } from './log-sink.ts';
import { QuietTime } from './quiet.ts';
import { sweepPlaces } from './sweep-places.ts';

/** When that is let go of which earlier workers had kept for tasks that are not there. */
const LEFTOVERS_MS = 30_000;

/** What a shim is started with, besides its configuration. */
export interface ShimStart {
  readonly args: ShimArguments;
  /** containerd's ttrpc socket; empty where it has none. */
  readonly ttrpcAddress: string;
  readonly socket: string;
  /** See ShimContext. */
  readonly openFiles: number | undefined;
  /** Whether this is the namespace's shim, which the launcher may know of. */
  readonly shared: boolean;
}

export interface ShimOptions extends ShimStart {
  readonly config: Config;
  readonly paths: Paths;
  /** Where this process is a guard's worker, which listens elsewhere. */
  readonly guard?: GuardLink;
}

/** Together less than what a shim that follows waits for: claim.ts. */
const DRAIN_MS = 5000;
const LAST_EVENTS_MS = 3000;
/** A `delete` that is still to come for the last task comes sooner than that. */
const LATE_DELETE_MS = 5000;
/**
 * When the pages of Node that nobody uses are let go. What runs containers needs a part of them again, for which the next request
 * takes 2 ms more: seldom enough not to be felt, and soon enough after many containers came at once, which V8 compiles for.
 */
const QUIET_MS = 5000;
const RELEASE_EVERY_MS = 10_000;

/** A serving shim: all its parts, put together. */
export class Shim {
  /** Settles when it has left and taken everything of its own away. */
  readonly served: Promise<void>;

  private constructor(served: Promise<void>) {
    this.served = served;
  }

  static async listen(options: ShimOptions): Promise<Shim> {
    const { args, config, ttrpcAddress, paths, socket, openFiles, shared } = options;
    const { guard } = options;
    const sink = new LogSink(guard);
    const log = createLogger((line) => sink.write(line), args.debug ? 'debug' : config.log.level);
    surviveMistakes(log); // in one container's code, it must not end the others' shim
    const reaper =
      guard === undefined ? new ChildReaper().start() : new GuardedReaper((pids) => guard.forget(pids));
    const exec = execWith(reaper);
    const events = new ContainerdSink({
      namespace: args.namespace,
      courier: courierTo(ttrpcAddress, guard),
      address: args.address,
      publishBinary: args.publishBinary,
      exec,
    });
    const journal = guard === undefined ? undefined : new EventJournal(paths.events(socket));
    const queue = new EventQueue(events, log, journal);
    const quiet = new QuietTime({
      quietMs: QUIET_MS,
      againMs: RELEASE_EVERY_MS,
      work: () =>
        void releaseProgramPages().catch((error: unknown) => {
          log.debug('pages of the program could not be released', { error: messageOf(error) });
        }),
    });
    const context: ShimContext = {
      namespace: args.namespace,
      config,
      paths,
      exec,
      binaries: new RuntimeBinaries(exec),
      pageServers: new CriuPageServers(exec, config.runtime.criu),
      reaper,
      events: noting(quiet, queue),
      log,
      logs: sink,
      self: guard === undefined ? thisProcess() : { pid: guard.pid, startTime: guard.startTime },
      kept:
        guard === undefined ? undefined : { keeper: guard, depository: guard, readiness: new Readiness() },
      socketFolder: dirname(socket),
      openFiles,
      socket,
    };
    const containers = new Containers();
    const resident = paths.resident(args.address, args.namespace);
    const publish = async (): Promise<void> =>
      shared ? announce(resident, socket, context.self) : undefined;
    const withdraw = async (): Promise<void> => (shared ? retract(resident, context.self) : undefined);
    if (guard !== undefined && reaper instanceof GuardedReaper)
      await goOn(guard, reaper, context, containers);
    queue.resumed();
    void guard?.adopted.then(() => queue.begin());
    const listener = createServer();
    await listenPrivately(listener, guard?.begin.socket ?? socket);
    const idle = new IdleTimer({
      timeoutMs: config.shim.idle_timeout * 1000,
      shared,
      isIdle: () => containers.size === 0,
      announce: publish,
      retract: withdraw,
    });
    const tools = instantTools(exec, config, log);
    const tasks = taskService(context, containers, idle, tools);
    const direct = guard && new DirectAnswers((fd) => guard.takeFrom(fd));
    const server = new Server(direct && { extension: direct })
      .register(TaskDefinition, tasks)
      .register(TaskDefinition, tasks, { fullName: 'containerd.task.v3.Task' })
      .register(EngineDefinition, engineOf(containers, tools))
      .listen(listener);
    process.on('SIGURG', expectQuickMoves); // from the launcher
    if (guard === undefined) process.on('SIGTERM', () => idle.terminate());
    else guard.onTerminate(() => idle.terminate());
    guard?.onQuiesce(() => settle(containers, queue));
    const answers = new Answers(paths.tasks(args.namespace));
    await publish();
    guard?.ready();
    void clearLeftovers(context).then(() => sweepPlaces(paths));
    return new Shim(
      (async () => {
        await idle.left;
        await withdraw();
        guard?.leaving();
        answers.stop();
        quiet.stop();
        if (shared) await answers.sweep(LATE_DELETE_MS);
        await server.shutdown({ timeout: DRAIN_MS });
        await queue.close(LAST_EVENTS_MS);
        reaper.stop();
        sink.closeAll();
        journal?.remove();
        context.kept?.readiness.close();
        if (guard === undefined) await rm(socket, { force: true });
      })(),
    );
  }
}

/** @param address containerd's ttrpc socket; empty where it has none */
function courierTo(address: string, guard: GuardLink | undefined): Courier | undefined {
  if (address === '') return undefined;
  return guard === undefined ? new OwnConnection(address) : new GuardedCourier(guard, address);
}

/** Takes up what earlier workers have left. */
async function goOn(
  guard: GuardLink,
  reaper: GuardedReaper,
  context: ShimContext,
  containers: Containers,
): Promise<void> {
  const expectation = reaper.expect();
  for (const exit of guard.begin.exits) reaper.ended(exit);
  guard.onExit((exit) => reaper.ended(exit));
  await takeUpAll(context, containers);
  // Not at once: a Create that was cut off is asked for again, and its client would take an end for the container's.
  setTimeout(() => {
    const leftovers = leftoversOf(guard.names, containers);
    if (leftovers.length > 0) guard.drop(leftovers);
  }, LEFTOVERS_MS).unref();
  expectation.close();
}

/** How long events are waited for that containerd does not take: they are in their journal. */
const EVENTS_MS = 2000;

/** Waits for what is under way, so that another worker can follow. @returns what that one could not go on with */
async function settle(containers: Containers, events: EventQueue): Promise<string | undefined> {
  const all = [...containers.all];
  await Promise.all(all.map(({ queue }) => queue.run(async () => undefined)));
  const unborn = all.find(({ init }) => init.state.name === 'restorable');
  if (unborn !== undefined) return `${unborn.id}, which was created from a checkpoint and is not started,`;
  const filling = all.find(({ fill }) => fill?.isMissing === true && fill.lost === undefined);
  if (filling !== undefined) return `the memory of ${filling.id}, which comes in while it runs,`;
  await Promise.race([events.flush(), sleep(EVENTS_MS, undefined, { ref: false })]);
  return undefined;
}

/** All that happens to a container is an event. */
function noting(quiet: QuietTime, events: Events): Events {
  return {
    publish(kind, event) {
      quiet.note();
      events.publish(kind, event);
    },
    withdraw: (containerId) => events.withdraw(containerId),
  };
}

/** What an earlier shim left that was killed, and that nobody came to the end of. */
async function clearLeftovers({ paths, namespace, exec, log }: ShimContext): Promise<void> {
  try {
    if (!(await hasDead(paths, namespace))) return;
    await withClearLock(paths.clearLock(namespace), () => clearDead(paths, namespace, exec));
  } catch (error) {
    log.warn('what a dead shim left could not be cleared away', { error: messageOf(error) });
  }
}
