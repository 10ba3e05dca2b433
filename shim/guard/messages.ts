// What the guard and its worker tell each other, over Node's channel between parent and child.

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
  /** What the shim was started with; the guard does not look into it. */
  readonly start: unknown;
  /** Where the worker is to listen. */
  readonly socket: string;
  /** The guard's descriptors, by their names: a worker takes them by pidfd_getfd(2). */
  readonly held: readonly (readonly [name: string, fd: number])[];
  readonly exits: readonly ExitNote[];
}

export type ToWorker =
  | Begin
  | { readonly kind: 'exit'; readonly exit: ExitNote }
  /** The guard has the descriptor too, or could not get it. */
  | { readonly kind: 'held'; readonly call: number; readonly error?: string }
  | { readonly kind: 'ping' }
  /** SIGTERM came. */
  | { readonly kind: 'terminate' };

export type ToGuard =
  /** Serves from now on, with every container taken up. */
  | { readonly kind: 'ready' }
  /** Keep this descriptor of mine under that name. */
  | { readonly kind: 'hold'; readonly call: number; readonly name: string; readonly fd: number }
  | { readonly kind: 'drop'; readonly names: readonly string[] }
  /** Nobody will ask again how these ended. */
  | { readonly kind: 'forget'; readonly pids: readonly number[] }
  | { readonly kind: 'pong' }
  /** There is nothing to do any more: no new connections, and the worker's end is the guard's. */
  | { readonly kind: 'leaving' };

/**
 * Key of the metadata by which the guard marks a request that a worker before this one had been given too, and that nobody has answered.
 */
export const AGAIN = 'stasis-again';
