// The shim's side of an instant that several containers share: Engine.CheckpointTogether.
import { streaming } from '../api/updates.ts';
import { Cancelled, DeadlineExceeded, InvalidArgument } from '../errors.ts';
import {
  Gate,
  type InstantRequest,
  type InstantResponse,
  type TogetherAnswer,
  type TogetherStep,
} from '../proto/gen/stasis/engine.ts';
import type { Gates } from './instant-plan.ts';

/** Milliseconds that a container stands at a gate beyond what the dump of another may take. */
const GRACE_MS = 10_000;
const DEFAULT_TIMEOUT_MS = 300_000;

/**
 * Runs `take` with gates that the caller opens, step by step. A caller that ends its steps before the last gate is gone, and
 * so is one that does not open a gate in time: whoever waits there gets an error, and `left` aborts.
 */
export function takeAtGates(
  steps: AsyncIterable<TogetherStep>,
  take: (request: InstantRequest, gates: Gates, left: AbortSignal) => Promise<InstantResponse>,
): AsyncIterable<TogetherAnswer> {
  return streaming<TogetherAnswer>(async (answers) => {
    const told = steps[Symbol.asyncIterator]();
    const first: IteratorResult<TogetherStep, unknown> = await told.next();
    const begin = first.done === true ? undefined : first.value.step;
    if (begin?.$case !== 'begin') throw new InvalidArgument('the first message must begin the instant');
    const { id, timeoutMs } = begin.value;
    const left = new AbortController();
    let next: Promise<IteratorResult<TogetherStep, unknown>> = told.next(); // always asked for, so that an end is noticed while CRIU is at work
    const watch = (): void => {
      next.then(
        ({ done }) => {
          if (done === true) left.abort(gone(id));
        },
        () => left.abort(gone(id)),
      );
    };
    watch();
    const reach = async (gate: Gate): Promise<void> => {
      answers.push({ answer: { $case: 'reached', value: gate } });
      const answer = await inTime(next, id, timeoutMs);
      if (answer.done === true) throw gone(id);
      const { step } = answer.value;
      if (step?.$case !== 'pass' || step.value !== gate) {
        throw new InvalidArgument(`gate ${gate} was reached, and another message came than to pass it`);
      }
      next = told.next();
      watch();
    };
    const gates: Gates = {
      ready: () => reach(Gate.GATE_READY),
      still: () => reach(Gate.GATE_STILL),
      synced: () => reach(Gate.GATE_SYNCED),
      dumped: () => reach(Gate.GATE_DUMPED),
    };
    const response = await take(begin.value, gates, left.signal);
    answers.push({ answer: { $case: 'done', value: response } });
  });
}

function gone(id: string): Cancelled {
  return new Cancelled(`the caller went away, so the checkpoint of ${id} was undone`, { subject: id });
}

async function inTime<T>(step: Promise<T>, id: string, timeoutMs: bigint): Promise<T> {
  const limit = (timeoutMs > 0n ? Number(timeoutMs) : DEFAULT_TIMEOUT_MS) + GRACE_MS;
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    const what = `${id} stood still for ${limit} ms at a gate that nobody opened, and runs on`;
    reject(new DeadlineExceeded(what, { subject: id }));
  }, limit);
  try {
    return await Promise.race([step, late]);
  } finally {
    clearTimeout(timer);
  }
}
