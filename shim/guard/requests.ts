// What the guard knows of requests: which they are, whether they wait, and what becomes of them when a worker ends.
import { HEADER_LENGTH, type MessageFrame } from '../../ttrpc/frame.ts';
import { bytesOf, targetOf } from './frames.ts';

/** With how many workers a request may come to its end before it is given no other: it may be what they die of. */
export const MAX_WORKERS = 10;

/** After so many it is given to the next one in its turn: see turns.ts. */
const WORKERS_TOGETHER = 2;

/** Both versions of containerd's service: what is asked there the next worker can answer. */
export const TASK_SERVICE = /^containerd\.task\.v[23]\.Task$/;

/**
 * What waits for a worker even where none comes for now: who is refused a Wait never learns how the process ended, and a containerd
 * that is refused the two that it asks at its start takes the task for dead, and has it ended … Who is refused a CloseIO does not ask again: the process would wait for the end of
 * its input for ever.
 */
const PATIENT: ReadonlySet<string> = new Set(['Wait', 'CloseIO', 'Connect']); // and Pids where it is the second of the two
/** … as it does where they are not answered within five seconds, so that they wait no longer than this where a worker has left answers. */
export const PATIENCE_MS = 1000;
/** The first of the two, and of all that is asked on its connection; the second one follows it. */
export const FIRST = 'Connect';
const SECOND = 'Pids';

/** What changes nothing that a worker would have to come to the end of: it may be asked while a worker is replaced. */
const HARMLESS: ReadonlySet<string> = new Set([
  'State',
  'Stats',
  'Pids',
  'Connect',
  'Wait',
  'CloseIO',
  'ResizePty',
]);

/**
 * What a worker answers at once, from what it has in memory, and may answer twice. containerd gives it up after two seconds. That and
 * `Unavailable` newer versions hand on, and clients take both for a task that is not there: `ctr containers rm` then removes a container
 * that runs. Of any other error they make a task whose status is unknown.
 */
const PROMPT = 'State';
export const PROMPT_MS = 1800;

/** A request that is not answered. */
export interface Open {
  readonly frame: MessageFrame;
  /** The frame as the client sent it. */
  readonly bytes: Buffer;
  readonly service: string;
  readonly method: string;
  /** Whether the worker that serves now has been given it. */
  given: boolean;
  /** How many workers have ended with it. */
  workers: number;
  /** Whether it is the second of what a restarted containerd asks. */
  readonly isSecond: boolean;
  /** When it came, on the clock of performance.now(). */
  readonly came: number;
  /** Whether it is looked at again before its client gives it up. */
  limited: boolean;
  /** Runs out when it has waited long enough for a worker. It holds all of the connection, which may be over sooner. */
  patience?: NodeJS.Timeout;
}

/** A request that nobody has been given yet. @param frame its body is copied @param isNext whether the one before was `FIRST` */
export function openOf(frame: MessageFrame, isNext: boolean): Open {
  const bytes = bytesOf(frame);
  const { streamId, type, flags } = frame;
  const body = bytes.subarray(HEADER_LENGTH);
  const target = targetOf(body);
  return {
    frame: { kind: 'message', streamId, type, flags, body },
    bytes,
    ...target,
    given: false,
    workers: 0,
    isSecond: isNext && target.method === SECOND,
    came: performance.now(),
    limited: false,
  };
}

/** Whether a worker leaves an answer for such a request. */
export function canBeLeft({ service, method, frame, isSecond }: Open): boolean {
  return (method === FIRST || isSecond) && frame.flags === 0 && TASK_SERVICE.test(service);
}

/** See PROMPT. */
export function isPrompt({ service, method }: Open): boolean {
  return method === PROMPT && TASK_SERVICE.test(service);
}

/** See PATIENT. */
export function isPatient({ method, isSecond }: Open): boolean {
  return PATIENT.has(method) || isSecond;
}

/** See HARMLESS. */
export function isHarmless({ service, method }: Open): boolean {
  return TASK_SERVICE.test(service) && HARMLESS.has(method);
}

/** Whether others with which workers have ended are not to be under way with it. What is may wait for a Kill. */
export function takesTurns(open: Open): boolean {
  return open.workers >= WORKERS_TOGETHER && open.method !== 'Kill' && !isHarmless(open);
}
