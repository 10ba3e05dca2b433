import { Code } from '../errors.ts';

interface Outcome {
  /** The process's exit code; docs/exit-codes.md lists them. */
  readonly exit: number;
  /** gRPC's name of the status. */
  readonly name: string;
  /** The next step, where the server names none. */
  readonly remedy: string;
}

const look = 'see what is there with `stasis ls`';
const log = "see stasisd's log";

/** The one table from status codes to exit codes. Anything that is not in it is a failure like Unknown. */
const outcomes: Readonly<Record<number, Outcome>> = {
  [Code.OK]: { exit: 0, name: 'OK', remedy: '' },
  [Code.Cancelled]: { exit: 9, name: 'CANCELLED', remedy: look },
  [Code.Unknown]: { exit: 1, name: 'UNKNOWN', remedy: log },
  [Code.InvalidArgument]: { exit: 2, name: 'INVALID_ARGUMENT', remedy: 'see `stasis help`' },
  [Code.DeadlineExceeded]: { exit: 11, name: 'DEADLINE_EXCEEDED', remedy: look },
  [Code.NotFound]: { exit: 3, name: 'NOT_FOUND', remedy: look },
  [Code.AlreadyExists]: {
    exit: 4,
    name: 'ALREADY_EXISTS',
    remedy: 'choose another name, or remove it first',
  },
  [Code.PermissionDenied]: { exit: 10, name: 'PERMISSION_DENIED', remedy: 'run stasis as root' },
  [Code.ResourceExhausted]: {
    exit: 6,
    name: 'RESOURCE_EXHAUSTED',
    remedy: 'see what takes the space with `stasis df`, and remove checkpoints with `stasis rm`',
  },
  [Code.FailedPrecondition]: { exit: 5, name: 'FAILED_PRECONDITION', remedy: look },
  [Code.Aborted]: { exit: 12, name: 'ABORTED', remedy: 'try again when the other operation is over' },
  [Code.Unimplemented]: {
    exit: 8,
    name: 'UNIMPLEMENTED',
    remedy: 'see what this host can do with `stasis info`',
  },
  [Code.Internal]: { exit: 1, name: 'INTERNAL', remedy: log },
  [Code.Unavailable]: { exit: 7, name: 'UNAVAILABLE', remedy: 'see that stasisd and containerd run' },
};

/** What a status code means to the user of the command line. */
export function outcomeOf(code: number): Outcome {
  return outcomes[code] ?? { exit: 1, name: 'UNKNOWN', remedy: log };
}
