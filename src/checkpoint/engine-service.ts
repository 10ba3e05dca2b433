import { InvalidArgument, NotFound } from '../errors.ts';
import {
  type DescribeRequest,
  type DescribeResponse,
  type EndSessionsRequest,
  type EndSessionsResponse,
  type InstantRequest,
  type InstantResponse,
  type PreDumpRequest,
  type PreDumpResponse,
  SessionPolicy,
  type TogetherAnswer,
  type TogetherStep,
} from '../proto/gen/stasis/engine.ts';
import { version } from '../version.ts';
import { takeInstant } from './instant.ts';
import type { InstantPlan, InstantResult, InstantTarget, InstantTools } from './instant-plan.ts';
import { preDump } from './pre-dump.ts';
import { defaultCriuOptions } from './stock.ts';
import { takeAtGates } from './gates.ts';

/** A container as the shim hands it to the engine. */
export interface EngineContainer {
  readonly target: InstantTarget;
  readonly runtimeName: string;
  readonly rootfs: string;
  readonly terminal: boolean;
  readonly execSessions: number;
  /**
   * Runs alone in the container's queue: nothing starts, pauses or ends it meanwhile.
   * @param withMemory wait before that until its memory is all there, after a restore that brings it in by and by
   * @param sessions what becomes of exec sessions first
   * @throws Aborted where one of them is in the way
   */
  exclusive<T>(run: () => Promise<T>, withMemory: boolean, sessions: SessionTerms): Promise<T>;
}

/** What becomes of a container's exec sessions before something. */
export interface SessionTerms {
  readonly policy: SessionPolicy;
  /** Milliseconds that their end is waited for. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

export interface EngineContainers {
  /** The container, once it has an init process; undefined for one that the shim does not hold. */
  find(id: string): EngineContainer | undefined;
}

/** The handlers of `stasis.engine.v1.Engine`, in the form that the ttrpc server registers. */
export interface EngineHandlers {
  checkpoint(request: InstantRequest, context: { readonly signal: AbortSignal }): Promise<InstantResponse>;
  checkpointTogether(
    steps: AsyncIterable<TogetherStep>,
    context: { readonly signal: AbortSignal },
  ): AsyncIterable<TogetherAnswer>;
  preDump(request: PreDumpRequest, context: { readonly signal: AbortSignal }): Promise<PreDumpResponse>;
  endSessions(
    request: EndSessionsRequest,
    context: { readonly signal: AbortSignal },
  ): Promise<EndSessionsResponse>;
  describe(request: DescribeRequest): Promise<DescribeResponse>;
}

const DEFAULT_TIMEOUT_MS = 300_000;

/** The service that stasisd calls for the part of a checkpoint that must happen beside the container. */
export function engineService(containers: EngineContainers, tools: InstantTools): EngineHandlers {
  const find = (id: string): EngineContainer => {
    const container = containers.find(id);
    if (container !== undefined) return container;
    throw new NotFound(`this shim holds no running container ${id}`, { subject: id });
  };
  return {
    async checkpoint(request, { signal }) {
      const container = find(request.id);
      const plan = planOf(request);
      const { target } = container;
      const take = (): Promise<InstantResult> => takeInstant(target, plan, tools, signal);
      const terms = termsOf(request, signal);
      const result = await container.exclusive(take, plan.memory !== undefined, terms);
      return responseOf(result, target.pid);
    },

    async preDump(request, { signal }) {
      const container = find(request.id);
      const { imageDir, workDir, parentPath } = request;
      absolute('image_dir', imageDir);
      absolute('work_dir', workDir);
      if (parentPath !== '') relative('parent_path', parentPath);
      const folders = { imageDir, workDir, ...(parentPath === '' ? {} : { parentPath }) };
      const timeoutMs = timeoutOf(request);
      const terms = { policy: SessionPolicy.SESSIONS_LEAVE, timeoutMs, signal };
      return container.exclusive(
        () => preDump(container.target, folders, tools, { timeoutMs, signal }),
        true,
        terms,
      );
    },

    async endSessions(request, { signal }) {
      await find(request.id).exclusive(async () => undefined, false, termsOf(request, signal));
      return {};
    },

    checkpointTogether(steps, { signal }) {
      return takeAtGates(steps, async (request, gates, left) => {
        const container = find(request.id);
        const plan = planOf({ ...request, exit: false });
        const { target } = container;
        const gone = AbortSignal.any([signal, left]);
        const take = async (): Promise<InstantResult> => {
          if (request.sessions !== SessionPolicy.SESSIONS_LEAVE) await gates.ready();
          return takeInstant(target, plan, { ...tools, gates }, gone);
        };
        const terms = termsOf(request, gone);
        const result = await container.exclusive(take, plan.memory !== undefined, terms);
        return responseOf(result, target.pid);
      });
    },

    async describe(request) {
      const container = containers.find(request.id);
      return {
        shimPid: process.pid,
        version,
        hasContainer: container !== undefined,
        runtime: container?.runtimeName ?? '',
        cgroupPath: container?.target.cgroup.path ?? '',
        rootfs: container?.rootfs ?? '',
        terminal: container?.terminal ?? false,
        pid: container?.target.pid ?? 0,
        execSessions: container?.execSessions ?? 0,
        heedsSessions: true,
        preDumps: true,
      };
    },
  };
}

/** @throws InvalidArgument naming what is wrong with the request */
export function planOf(request: InstantRequest): InstantPlan {
  const { imageDir, workDir, snapshot, syncPath, parentPath } = request;
  if (imageDir === '' && snapshot === '') throw new InvalidArgument('neither memory nor disk is asked for');
  if (imageDir !== '') absolute('image_dir', imageDir);
  if (imageDir !== '') absolute('work_dir', workDir);
  if (parentPath !== '') relative('parent_path', parentPath);
  if (snapshot !== '') absolute('sync_path', syncPath);
  if (snapshot !== '' && !/^[^@]+@[^@]+$/.test(snapshot)) {
    throw new InvalidArgument(`"${snapshot}" does not name a snapshot`, { subject: snapshot });
  }
  return {
    exit: request.exit,
    timeoutMs: timeoutOf(request),
    ...(imageDir === ''
      ? {}
      : {
          memory: {
            ...{ imageDir, workDir, isGiven: true, ownRestore: true },
            criu: defaultCriuOptions,
            required: request.requireMemory,
            ...(parentPath === '' ? {} : { parentPath }),
          },
        }),
    ...(snapshot === '' ? {} : { disk: { snapshot, properties: request.properties, syncPath } }),
  };
}

function timeoutOf({ timeoutMs }: Pick<InstantRequest, 'timeoutMs'>): number {
  return timeoutMs > 0n ? Number(timeoutMs) : DEFAULT_TIMEOUT_MS;
}

function termsOf(request: Pick<InstantRequest, 'sessions' | 'timeoutMs'>, signal: AbortSignal): SessionTerms {
  return { policy: request.sessions, timeoutMs: timeoutOf(request), signal };
}

function absolute(field: string, path: string): void {
  if (!path.startsWith('/')) {
    throw new InvalidArgument(`${field} must be an absolute path, not "${path}"`, { subject: field });
  }
}

function relative(field: string, path: string): void {
  if (path.startsWith('/')) {
    throw new InvalidArgument(`${field} must be relative to the image folder, not "${path}"`, {
      subject: field,
    });
  }
}

function responseOf(result: InstantResult, pid: number): InstantResponse {
  return {
    memory: result.memory,
    memoryError: result.memoryError,
    wasPaused: result.wasPaused,
    freezeNs: result.times.freeze,
    dumpNs: result.times.dump,
    syncNs: result.times.sync,
    snapshotNs: result.times.snapshot,
    frozenNs: result.times.frozen,
    imageBytes: BigInt(result.imageBytes),
    pid,
    exited: result.exited,
    cpuNs: result.cpuNs,
    parentError: result.parentError,
  };
}
