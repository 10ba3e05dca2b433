import { Code, StasisError } from '../../src/errors.ts';
import { Status } from '../../src/proto/gen/containerd/task_types.ts';

export type InitVerb = 'start' | 'pause' | 'resume' | 'update' | 'checkpoint' | 'delete' | 'kill' | 'exec';
export type ExecVerb = 'start' | 'delete' | 'kill' | 'resize';

/** One state of a process: what clients see, what it refuses, and what may follow. */
export interface State<Name extends string, Verb extends string> {
  readonly name: Name;
  readonly status: Status;
  /** Verbs that are an error in this state, with the words containerd's clients know. */
  readonly refuses: Partial<Readonly<Record<Verb, string>>>;
  readonly next: readonly Name[];
}

export type InitStateName = 'created' | 'restorable' | 'running' | 'paused' | 'stopped' | 'deleted';

/** The states of a container's first process. `restorable`: created from a checkpoint, restored by Start. */
export const initStates: Readonly<Record<InitStateName, State<InitStateName, InitVerb>>> = {
  created: {
    name: 'created',
    status: Status.CREATED,
    refuses: {
      pause: 'cannot pause task in created state',
      resume: 'cannot resume task in created state',
      checkpoint: 'cannot checkpoint a task in created state',
    },
    next: ['running', 'stopped', 'deleted'],
  },
  restorable: {
    name: 'restorable',
    status: Status.CREATED,
    refuses: {
      pause: 'cannot pause task in created state',
      resume: 'cannot resume task in created state',
      checkpoint: 'cannot checkpoint a task in created state',
      exec: 'cannot exec in a created state',
    },
    next: ['running', 'stopped', 'deleted'],
  },
  running: {
    name: 'running',
    status: Status.RUNNING,
    refuses: {
      start: 'cannot start a running process',
      resume: 'cannot resume a running process',
      delete: 'cannot delete a running process',
    },
    next: ['paused', 'stopped'],
  },
  paused: {
    name: 'paused',
    status: Status.PAUSED,
    refuses: {
      start: 'cannot start a paused process',
      pause: 'cannot pause a paused container',
      delete: 'cannot delete a paused process',
      exec: 'cannot exec in a paused state',
    },
    next: ['running', 'stopped'],
  },
  stopped: {
    name: 'stopped',
    status: Status.STOPPED,
    refuses: {
      start: 'cannot start a stopped process',
      pause: 'cannot pause a stopped container',
      resume: 'cannot resume a stopped container',
      update: 'cannot update a stopped container',
      checkpoint: 'cannot checkpoint a stopped container',
      exec: 'cannot exec in a stopped state',
    },
    next: ['deleted'],
  },
  deleted: {
    name: 'deleted',
    status: Status.STOPPED,
    refuses: {
      start: 'cannot start a deleted process',
      pause: 'cannot pause a deleted process',
      resume: 'cannot resume a deleted process',
      update: 'cannot update a deleted process',
      checkpoint: 'cannot checkpoint a deleted process',
      delete: 'cannot delete a deleted process',
      kill: 'cannot kill a deleted process',
      exec: 'cannot exec in a deleted state',
    },
    next: [],
  },
};

export type ExecStateName = 'created' | 'running' | 'stopped' | 'deleted';

export const execStates: Readonly<Record<ExecStateName, State<ExecStateName, ExecVerb>>> = {
  created: { name: 'created', status: Status.CREATED, refuses: {}, next: ['running', 'stopped', 'deleted'] },
  running: {
    name: 'running',
    status: Status.RUNNING,
    refuses: { start: 'cannot start a running process', delete: 'cannot delete a running process' },
    next: ['stopped'],
  },
  stopped: {
    name: 'stopped',
    status: Status.STOPPED,
    refuses: { start: 'cannot start a stopped process', resize: 'cannot resize a stopped container' },
    next: ['deleted'],
  },
  deleted: {
    name: 'deleted',
    status: Status.STOPPED,
    refuses: {
      start: 'cannot start a deleted process',
      delete: 'cannot delete a deleted process',
      kill: 'cannot kill a deleted process',
      resize: 'cannot resize a deleted process',
    },
    next: [],
  },
};

/** The state that a process is in. */
export class StateMachine<Name extends string, Verb extends string> {
  readonly #states: Readonly<Record<Name, State<Name, Verb>>>;
  #current: State<Name, Verb>;

  constructor(states: Readonly<Record<Name, State<Name, Verb>>>, first: Name) {
    this.#states = states;
    this.#current = states[first];
  }

  get name(): Name {
    return this.#current.name;
  }

  get status(): Status {
    return this.#current.status;
  }

  /**
   * Checks that a verb is possible now.
   * @throws StasisError with the status Unknown, as containerd's own shim answers
   */
  require(verb: Verb): void {
    const refusal = this.#current.refuses[verb];
    if (refusal !== undefined) throw new StasisError(Code.Unknown, refusal);
  }

  /** @throws StasisError for a move that cannot happen */
  to(name: Name): void {
    if (!this.#current.next.includes(name)) {
      throw new StasisError(Code.Unknown, `invalid state transition "${this.#current.name}" to "${name}"`);
    }
    this.#current = this.#states[name];
  }
}
