/**
 * What we do otherwise than containerd's own shim, on purpose: a line of their recording, and what stands in ours in its
 * place. All else has to be equal.
 */
export interface Difference {
  readonly scenario: string;
  readonly theirs: RegExp;
  readonly ours: string;
  readonly reason: string;
}

/** Stands for a line that ours has not. */
export const NOTHING = '<nothing>';
/** Between two lines that ours has for one of theirs. */
export const NEXT = '<next>';

const directKill =
  'Signals are system calls here. Theirs runs the OCI runtime for them, and its words are in the message.';
const ownWords = 'The class is the same; what the OCI runtime said comes without how it was run and ended.';
const whoseFault =
  'The code says whose fault it is. Theirs answers Unknown to everything that it did not think of.';
const exitFirst =
  'TaskExit precedes TaskDelete, whatever ended the process. Theirs answers, and publishes, before it has reaped it.';

export const deliberate: readonly Difference[] = [
  {
    scenario: 'unknown signals',
    theirs:
      /(unknown error after kill: )runc did not terminate successfully: exit status 1: unable to signal init: (invalid argument)\n: /,
    ours: '$1$2: ',
    reason: directKill,
  },
  {
    scenario: 'unknown signals',
    theirs: /exec kill error: (?=unknown error after kill)/,
    ours: '',
    reason: directKill,
  },
  {
    scenario: 'a task that never starts',
    theirs: /^delete: .*$/,
    ours: 'delete: {"id":"","pid":"<pid 1>","exitStatus":137,"exitedAt":"set"}',
    reason: exitFirst,
  },
  {
    scenario: 'a task that never starts',
    theirs: /^event: <c1> \/tasks\/exit .*$/,
    ours: NOTHING,
    reason: exitFirst,
  },
  {
    scenario: 'a task that never starts',
    theirs: /^event: <c1> \/tasks\/delete .*$/,
    ours:
      'event: <c1> /tasks/exit {"id":"<c1>","pid":"<pid 1>","exitStatus":137,"exitedAt":"set"}' +
      `${NEXT}event: <c1> /tasks/delete {"pid":"<pid 1>","exitStatus":137,"exitedAt":"set","id":""}`,
    reason: exitFirst,
  },
  {
    scenario: 'while paused',
    theirs: /^(start early: error )2(.*)unknown$/,
    ours: '$19$2failed precondition',
    reason: whoseFault,
  },
  {
    scenario: 'output to a file that cannot be',
    theirs: /failed to create init process I\/O: (mkdir) (\/proc\/no): (no such file or directory)/,
    ours: "ENOENT: $3, $1 '$2'",
    reason: ownWords,
  },
  {
    scenario: 'output to a program that is missing',
    theirs: /failed to create init process I\/O: .*: unknown/,
    ours: 'failed to start the logging program /no/such/logger: spawn /no/such/logger ENOENT: failed precondition',
    reason: whoseFault,
  },
  {
    scenario: 'output to a kind of place that is unknown',
    theirs: /failed to create init process I\/O: (.*): unknown/,
    ours: '$1: invalid argument',
    reason: whoseFault,
  },
  {
    scenario: 'new limits',
    theirs: /runc did not terminate successfully: exit status 1: (.*)\(current usage: <n>\)\n: unknown/,
    ours: 'OCI runtime update failed: $1(current usage: <n>): unknown',
    reason: ownWords,
  },
];
