// A CRIU at work on a container, and how it is ended when it must be.
import { join } from 'node:path';
import { breakOffDump, type BreakOff } from '../criu/break-off.ts';
import { emptyImage } from '../criu/image.ts';
import { describeFailure, lastError } from '../criu/log.ts';
import { endStrayCriu } from '../criu/stray.ts';
import { Cancelled, DeadlineExceeded, FailedPrecondition, messageOf } from '../errors.ts';
import { isOciError } from '../oci/error.ts';
import type { CallLimits } from '../oci/types.ts';
import { isDying } from '../sys/dying.ts';
import type { InstantTarget, InstantTools } from './instant-plan.ts';

/** A dump that failed for a reason of the container's or of CRIU's; the disk may still be kept. */
export class DumpFailure extends Error {
  /** The reason is of that moment alone: a dump a moment later may succeed. */
  readonly passing: boolean;

  /** @param reason CRIU's own words, where it left any */
  constructor(reason: string, cause: unknown, { passing = false } = {}) {
    super(reason, { cause });
    this.name = 'DumpFailure';
    this.passing = passing;
  }
}

/** What CRIU is to do, where, and for how long. */
interface CriuCall {
  /** `dump`: for messages. */
  readonly what: string;
  readonly imageDir: string;
  readonly workDir: string;
  /** Name of CRIU's log in `workDir`. */
  readonly log: string;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

/**
 * Runs a CRIU that writes an image of a container, and ends it when its time is up, its caller has gone or the container has
 * ended.
 * @throws DumpFailure with CRIU's reason, the image folder empty; Cancelled; DeadlineExceeded; FailedPrecondition where the
 *   container ended. No CRIU is left at work
 */
export async function endedInTime(
  target: Pick<InstantTarget, 'id' | 'pid'>,
  { what, imageDir, workDir, log, timeoutMs, signal }: CriuCall,
  tools: Pick<InstantTools, 'isDying'>,
  call: (limits: Required<CallLimits>) => Promise<void>,
): Promise<void> {
  const dying = tools.isDying ?? isDying;
  const ending = new Ending(imageDir, timeoutMs, signal, () => dying(target.pid));
  try {
    await call({ timeoutMs: timeoutMs + 2 * graceMs, signal: ending.kill });
    if (ending.reason !== undefined) throw new Error('it was whole when it was to end');
  } catch (error) {
    await endStrayCriu([imageDir, workDir]);
    await ending.putBack();
    await emptyImage(imageDir);
    if (ending.reason === 'ended') throw ended(target.id);
    if (ending.reason === 'cancelled' || isOciError(error, 'cancelled')) throw cancelled(target.id);
    if (ending.reason === 'timeout' || isOciError(error, 'timeout')) {
      throw new DeadlineExceeded(`the ${what} of ${target.id} took longer than ${timeoutMs} ms`, {
        subject: target.id,
        remedy: 'raise checkpoint.timeout in the configuration',
        cause: error,
      });
    }
    const failure = await lastError(join(workDir, log));
    if (failure === undefined) throw new DumpFailure(messageOf(error), error);
    throw new DumpFailure(describeFailure(failure), error, failure);
  } finally {
    ending.close();
  }
}

type Reason = 'cancelled' | 'timeout' | 'ended';

/** Milliseconds that a dump gets to break off by itself, before its processes are killed. */
const graceMs = 5_000;

/** The same once the container has ended: a CRIU that waits for a process of it may do so for ever. */
const graceAfterEndMs = 1_000;
const WATCH_MS = 50;

/**
 * Ends a dump when its time is up, its caller has gone or its container has ended: gently, and by force where that does
 * not help.
 */
class Ending {
  readonly #imageDir: string;
  readonly #signal: AbortSignal;
  readonly #force = new AbortController();
  readonly #deadline: NodeJS.Timeout;
  readonly #watch: NodeJS.Timeout;
  readonly #leave = (): void => this.#begin('cancelled');
  #grace: NodeJS.Timeout | undefined;
  #breakOff: BreakOff | undefined;
  /** Why the dump is being ended; undefined as long as it is not. */
  reason: Reason | undefined;

  constructor(imageDir: string, timeoutMs: number, signal: AbortSignal, hasEnded: () => boolean) {
    this.#imageDir = imageDir;
    this.#watch = setInterval(() => {
      if (hasEnded()) this.#begin('ended');
    }, WATCH_MS);
    this.#signal = signal;
    this.#deadline = setTimeout(() => this.#begin('timeout'), timeoutMs);
    signal.addEventListener('abort', this.#leave, { once: true });
    if (signal.aborted) this.#leave();
  }

  /** Aborts when waiting has been in vain. */
  get kill(): AbortSignal {
    return this.#force.signal;
  }

  /** Makes the image folder again, where it was taken away. */
  async putBack(): Promise<void> {
    await this.#breakOff?.putBack();
  }

  close(): void {
    clearInterval(this.#watch);
    clearTimeout(this.#deadline);
    clearTimeout(this.#grace);
    this.#signal.removeEventListener('abort', this.#leave);
  }

  #begin(reason: Reason): void {
    if (this.reason !== undefined) return;
    this.reason = reason;
    this.#breakOff = breakOffDump(this.#imageDir);
    const grace = reason === 'ended' ? graceAfterEndMs : graceMs;
    this.#grace = setTimeout(() => this.#force.abort(), grace);
  }
}

function ended(id: string): FailedPrecondition {
  return new FailedPrecondition(`container ${id} ended during its dump`, {
    subject: id,
    reason: 'container-not-running',
  });
}

export function cancelled(id: string): Cancelled {
  return new Cancelled(`the caller went away, so the checkpoint of ${id} was undone`, { subject: id });
}
