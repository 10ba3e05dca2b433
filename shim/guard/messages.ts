// What the guard and its worker tell each other, over Node's channel between parent and child.

/**
 * Goes up by one with each change of these messages that the other side has to know of. Guard and worker may be of different versions: a
 * worker that is started again is of the version that is installed then. A worker serves guards from its OLDEST_GUARD up to its own
 * number; both check it.
 */
export const PROTOCOL = 2;
export const OLDEST_GUARD = 2;

/** The first word of a worker, once its program is loaded: what it is, and which guards it serves. */
export interface Hello {
  readonly kind: 'hello';
  readonly version: string;
  readonly protocol: number;
  readonly oldestGuard: number;
  /** Whether it takes requests in any order; older ones refuse one that others have passed. */
  readonly anyOrder?: boolean;
}

/** Why a guard and a worker cannot meet; undefined where they can. */
export function misfit(
  guard: number,
  worker: Pick<Hello, 'version' | 'protocol' | 'oldestGuard'>,
): string | undefined {
  if (guard >= worker.oldestGuard && guard <= worker.protocol) return undefined;
  const served = `${worker.oldestGuard} to ${worker.protocol}`;
  return `a worker of version ${worker.version} serves guards of protocol ${served}, and this guard has ${guard}`;
}

/** How a process that no worker has dealt with to the end has ended. */
export interface ExitNote {
  readonly pid: number;
  /** In clock ticks since boot: a pid alone may be used again, proc(5). */
  readonly startTime: string;
  /** Exit code, or 128 + signal. */
  readonly status: number;
  readonly signal?: string;
  /** When, in Unix time: seconds as text, and nanoseconds. */
  readonly seconds: string;
  readonly nanos: number;
}

/** What the guard gives a worker that begins. */
export interface Begin {
  readonly kind: 'begin';
  readonly protocol: number;
  /** Whether the worker before it only stands still, and goes on should this one fail: nothing is told to anybody before `adopted`. */
  readonly trial: boolean;
  /** What the shim was started with; the guard does not look into it. */
  readonly start: unknown;
  /** Where the worker is to listen. */
  readonly socket: string;
  /** The guard's descriptors, by their names: a worker takes them by pidfd_getfd(2). */
  readonly held: readonly (readonly [name: string, fd: number])[];
  readonly exits: readonly ExitNote[];
}

/** What the guard is to answer a request with where no worker does in time; in base64. */
export interface Deposit {
  readonly method: string;
  /** The request's own message. */
  readonly payload: string;
  /** A ttrpc Response. */
  readonly body: string;
}

export type ToWorker =
  | Begin
  | { readonly kind: 'exit'; readonly exit: ExitNote }
  /** The guard has the descriptor too, or could not get it. */
  | { readonly kind: 'held'; readonly call: number; readonly error?: string }
  /** The guard has opened it, as that descriptor of its own, or could not. */
  | { readonly kind: 'opened'; readonly call: number; readonly fd: number; readonly error?: string }
  /** What containerd has answered, a ttrpc Response in base64; or why no answer comes. */
  | { readonly kind: 'answered'; readonly key: string; readonly body?: string; readonly error?: string }
  | { readonly kind: 'ping' }
  /** Come to the end of what is under way; another is to follow. */
  | { readonly kind: 'quiesce' }
  /** The trial is over: there is no other worker any more. */
  | { readonly kind: 'adopted' }
  /** SIGTERM came. */
  | { readonly kind: 'terminate' };

export type ToGuard =
  | Hello
  /** Serves from now on, with every container taken up. */
  | { readonly kind: 'ready' }
  /** Keep this descriptor of mine under that name. */
  | { readonly kind: 'hold'; readonly call: number; readonly name: string; readonly fd: number }
  /** Open that file, and keep it under that name. */
  | {
      readonly kind: 'open';
      readonly call: number;
      readonly name: string;
      readonly path: string;
      readonly flags: number;
    }
  | { readonly kind: 'drop'; readonly names: readonly string[] }
  /** Have containerd answer this, a ttrpc Request in base64, at the socket `path`: see Outbox. */
  | {
      readonly kind: 'call';
      readonly key: string;
      readonly path: string;
      readonly body: string;
      readonly afresh: boolean;
    }
  /** All answers that are left for a task from now on; none where it is no more. A guard that does not know of it has requests wait. */
  | { readonly kind: 'deposit'; readonly task: string; readonly deposits: readonly Deposit[] }
  /** Nobody will ask again how these ended. */
  | { readonly kind: 'forget'; readonly pids: readonly number[] }
  | { readonly kind: 'pong' }
  /** SIGTERM came, and there are containers: it is as if it had not come. */
  | { readonly kind: 'stays' }
  /** Nothing is under way; or what is, which a worker that follows could not go on with. */
  | { readonly kind: 'quiet'; readonly obstacle?: string }
  /** There is nothing to do any more: no new connections, and the worker's end is the guard's. */
  | { readonly kind: 'leaving' };

/**
 * Key of the metadata by which the guard marks a request that a worker before this one had been given too, and that nobody has answered.
 */
export const AGAIN = 'stasis-again';
