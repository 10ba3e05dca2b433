import type { TaskDefinition } from '../../src/proto/gen/containerd/task.ts';
import type { Connection, Handlers } from '../../ttrpc/index.ts';

type Tasks = Handlers<TaskDefinition>;

/**
 * Tells a containerd that has restarted from one that asks in the middle of its life. A restarted one opens a connection
 * for each task, calls Connect first of all, then Pids, and (from 1.7 on) deletes the task if no pid is named, though a
 * task that has ended meanwhile still owes its exit status to whoever waits for it. A worker that follows another one may hear
 * Connect first as well, in the middle of such a life (it belongs to Create); then something else comes after it.
 */
export class Reloads {
  /** How many calls there were by each connection, of a restarted containerd so far: 0 where it is none. */
  readonly #calls = new WeakMap<Connection, 0 | 1 | 2>();

  /** The same handlers, with each call looked at. */
  watch(tasks: Tasks): Tasks {
    const watched = Object.entries(tasks).map(([name, handler]) => [
      name,
      (request: never, call: Parameters<Tasks['pids']>[1]) => {
        this.#note(name, call.connection);
        return (handler as (request: never, context: typeof call) => Promise<unknown>)(request, call);
      },
    ]);
    return Object.fromEntries(watched) as Tasks;
  }

  /** Whether the call that is being answered is one of a restarted containerd's first two. */
  isReload(connection: Connection): boolean {
    return (this.#calls.get(connection) ?? 0) > 0;
  }

  #note(method: string, connection: Connection): void {
    const before = this.#calls.get(connection);
    const isFirst = before === undefined && method === 'connect';
    const isSecond = before === 1 && method === 'pids';
    this.#calls.set(connection, isFirst ? 1 : isSecond ? 2 : 0);
  }
}
