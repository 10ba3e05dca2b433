// One container's part in the instant of a set.
import { Code, codeOf, FailedPrecondition } from '../errors.ts';
import { Status } from '../proto/gen/containerd/task_types.ts';
import { Gate, type InstantResponse, type TogetherStep } from '../proto/gen/stasis/engine.ts';
import { syncfs } from '../sys/syncfs.ts';
import { Updates } from '../api/updates.ts';
import { notDumped } from './begin.ts';
import type { Host } from './host.ts';
import type { Rendezvous } from './rendezvous.ts';
import type { Engine } from './shim-client.ts';
import {
  asCallerSees,
  instantRequest,
  type InstantOptions,
  memoryRequired,
  notOurRuntime,
  type Taking,
} from './taking.ts';
import { withPausedTask } from './task.ts';

/**
 * Brings one container to the gates and lets it run on when all have passed the last. A failure is told to the others, and
 * theirs ends this one: its shim undoes, as when the caller of a single checkpoint goes away.
 */
export async function takeTogether(
  host: Host,
  taking: Taking,
  options: InstantOptions,
  gates: Rendezvous,
): Promise<InstantResponse> {
  const { engine, task } = taking;
  try {
    if (engine !== undefined && task !== undefined && task.status !== Status.STOPPED)
      return await dumpAtGates(host, taking, engine, options, gates);
    return await standStill(host, taking, options, gates);
  } catch (error) {
    gates.fail(error);
    throw error;
  }
}

async function dumpAtGates(
  host: Host,
  taking: Taking,
  engine: Engine,
  options: InstantOptions,
  gates: Rendezvous,
): Promise<InstantResponse> {
  const { request } = taking;
  const signal = AbortSignal.any([request.signal, gates.failed]);
  const leave = (): void => engine.close();
  signal.addEventListener('abort', leave, { once: true });
  const steps = new Updates<TogetherStep>();
  try {
    signal.throwIfAborted();
    steps.push({ step: { $case: 'begin', value: instantRequest(host, taking, options) } });
    let done: InstantResponse | undefined;
    for await (const { answer } of engine.calls.checkpointTogether(steps)) {
      if (answer?.$case === 'reached') {
        await pass(gates, answer.value);
        steps.push({ step: { $case: 'pass', value: answer.value } });
      } else {
        done = answer?.value;
        steps.end();
      }
    }
    if (done === undefined) throw new Error('the shim ended the call without a result');
    return done;
  } catch (error) {
    signal.throwIfAborted();
    if (codeOf(error) === Code.Unimplemented) throw tooOld(request.container);
    throw asCallerSees(error, request);
  } finally {
    signal.removeEventListener('abort', leave);
    steps.end();
  }
}

async function pass(gates: Rendezvous, gate: Gate): Promise<void> {
  if (gate === Gate.GATE_READY) return gates.ready();
  if (gate === Gate.GATE_STILL) return gates.still();
  if (gate === Gate.GATE_SYNCED) return gates.synced();
  if (gate === Gate.GATE_DUMPED) return gates.dumped();
  throw new Error(`the shim is at a gate ${gate} that is not known here`);
}

/** A container without a shim of ours, or that does not run: containerd pauses it, where there is anything to pause. */
async function standStill(
  host: Host,
  taking: Taking,
  { syncPath }: InstantOptions,
  gates: Rendezvous,
): Promise<InstantResponse> {
  const { request, record, task } = taking;
  const memoryError = request.diskOnly ? '' : notOurRuntime(record);
  if (request.requireMemory) throw memoryRequired(request.container, memoryError);
  if (request.execSessions !== 'leave') await gates.ready();
  const atGates = async (): Promise<InstantResponse> => {
    const begin = process.hrtime.bigint();
    await gates.still();
    const still = process.hrtime.bigint();
    await syncfs(syncPath);
    const synced = process.hrtime.bigint();
    await gates.synced();
    const end = process.hrtime.bigint();
    await gates.dumped();
    const times = { syncNs: synced - still, snapshotNs: end - synced };
    return { ...notDumped, memoryError, ...times, frozenNs: process.hrtime.bigint() - begin };
  };
  if (task?.status !== Status.RUNNING) return atGates();
  return withPausedTask(host, request.namespace, request.container, atGates);
}

function tooOld(container: string): FailedPrecondition {
  return new FailedPrecondition(`the shim of container ${container} is of a version that knows no sets`, {
    subject: container,
    reason: 'shim-too-old',
    remedy: `it is renewed when its last container ends; until then take it alone: stasis checkpoint ${container}`,
  });
}
