import type { Oci } from './oci.ts';

/**
 * What we do otherwise than containerd's own shim, on purpose: what stands in their recording of a scenario, and what
 * stands in ours in its place. All else has to be equal.
 */
export interface Difference {
  readonly scenario: string;
  readonly theirs: RegExp;
  readonly ours: string;
  readonly reason: string;
  /** The OCI runtime in whose recording it stands; any where left out. */
  readonly oci?: Oci;
}

const directKill =
  'Signals are system calls here. Theirs runs the OCI runtime for them, and its words are in the message.';
const ownWords = 'The class is the same; what was said is told without how it was come by.';
const whoseFault =
  'The code says whose fault it is. Theirs answers Unknown to everything that it did not think of.';
const exitFirst =
  'TaskExit precedes TaskDelete, whatever ended the process. Theirs answers, and publishes, before it has reaped it.';
const readLater = 'The fields of a process are read by the OCI runtime, at Start, and refused there.';
const countedOnce = 'An exec ends once. Theirs publishes its end once for each Start, the refused ones too.';
const kept =
  'A restart of containerd keeps ended tasks with their exit codes. containerd removes a task that has no process, and theirs has none.';

const writable =
  'Output that is wanted by nobody can be written. Theirs opens /dev/null for reading, and crun leaves it so.';
const asWritten =
  'A process is handed on as its client wrote it. Theirs leaves out what is empty, and crun does not say what it lacks.';

export const deliberate: readonly Difference[] = [
  {
    scenario: 'unknown signals',
    oci: 'crun',
    theirs:
      /(unknown error after kill: )runc did not terminate successfully: exit status 1: (send signal to pidfd: Invalid argument|unknown signal `\d+`)/g,
    ours: '$1invalid argument',
    reason: directKill,
  },
  {
    scenario: 'a bad user',
    oci: 'crun',
    theirs: /^(event: <c1> \/tasks\/exit {"id":"b".*"exitStatus":)1,/m,
    ours: '$10,',
    reason: writable,
  },
  {
    scenario: 'a bad specification',
    oci: 'crun',
    theirs: /^(start d: error 2: OCI runtime exec failed: )read pipe failed$/m,
    ours: '$1cannot find `` in $$PATH: No such file or directory',
    reason: asWritten,
  },
  {
    scenario: 'unknown signals',
    theirs:
      /(unknown error after kill: )runc did not terminate successfully: exit status 1: .*(invalid argument)/g,
    ours: '$1$2',
    reason: directKill,
  },
  {
    scenario: 'unknown signals',
    theirs: /exec kill error: (?=unknown error after kill)/g,
    ours: '',
    reason: directKill,
  },
  {
    scenario: 'a task that never starts',
    theirs: /^delete: .*$/m,
    ours: 'delete: {"id":"","pid":"<pid 1>","exitStatus":137,"exitedAt":"set"}',
    reason: exitFirst,
  },
  {
    scenario: 'a task that never starts',
    theirs: /\nevent: <c1> \/tasks\/exit .*/,
    ours: '',
    reason: exitFirst,
  },
  {
    scenario: 'a task that never starts',
    theirs: /^event: <c1> \/tasks\/delete .*$/m,
    ours:
      'event: <c1> /tasks/exit {"id":"<c1>","pid":"<pid 1>","exitStatus":137,"exitedAt":"set"}\n' +
      'event: <c1> /tasks/delete {"pid":"<pid 1>","exitStatus":137,"exitedAt":"set","id":""}',
    reason: exitFirst,
  },
  {
    scenario: 'while paused',
    theirs: /^(start early: error )2(.*)$/m,
    ours: '$19$2: failed precondition',
    reason: whoseFault,
  },
  {
    scenario: 'a bad specification',
    theirs: /^(exec a: error )2: unexpected (end of JSON input)$/m,
    ours: '$13: process spec is not valid JSON: Unexpected $2: invalid argument',
    reason: whoseFault,
  },
  {
    scenario: 'a bad specification',
    theirs: /^exec b: error 2: json: cannot unmarshal number .*$/m,
    ours: 'exec b: {}',
    reason: readLater,
  },
  {
    scenario: 'a bad specification',
    theirs: /^(event: <c1> \/tasks\/exec-added )(.*"c".*)$/m,
    ours: '$1{"execId":"b"}\n$1$2',
    reason: readLater,
  },
  {
    scenario: 'one that is started twice',
    theirs: /^ctr tasks rm -f: .*not found.*$/m,
    ours: 'ctr tasks rm -f: {"exit":0,"stdout":"","stderr":"time=\\"<time>\\" level=warning msg=\\"task <c1> exit with non-zero exit code 137\\"\\n"}',
    reason: countedOnce,
  },
  {
    scenario: 'one that is started twice',
    theirs: /(\nevent: <c1> \/tasks\/exit {"id":"e".*)\1/,
    ours: '$1',
    reason: countedOnce,
  },
  {
    scenario: 'output to a file that cannot be',
    theirs: /failed to create init process I\/O: (mkdir) (\/proc\/no): (no such file or directory)/,
    ours: "ENOENT: $3, $1 '$2'",
    reason: ownWords,
  },
  {
    scenario: 'output to a program that is missing',
    theirs: /failed to create init process I\/O: .*no such file or directory/,
    ours: 'failed to start the logging program /no/such/logger: spawn /no/such/logger ENOENT: failed precondition',
    reason: whoseFault,
  },
  {
    scenario: 'output to a kind of place that is unknown',
    theirs: /failed to create init process I\/O: (unknown STDIO scheme gopher)/,
    ours: '$1: invalid argument',
    reason: whoseFault,
  },
  {
    scenario: 'new limits',
    theirs: /runc did not terminate successfully: exit status 1: /,
    ours: 'OCI runtime update failed: ',
    reason: ownWords,
  },
  {
    scenario: 'new limits',
    theirs: /^(update {"memory": 3: error )2: unexpected end of JSON input$/m,
    ours: "$13: resources is not valid JSON: Expected ',' or '}' after property value in JSON at position 12 (line 1 column 13): invalid argument",
    reason: whoseFault,
  },
  {
    scenario: 'an end while it is away',
    theirs: /^state: error 5: .*$/m,
    ours:
      'state: {"process":{"containerId":"","id":"<c1>","pid":"<pid 1>","status":3,"stdin":"","stdout":"","stderr":"",' +
      '"terminal":false,"exitStatus":7,"exitedAt":"set"}}',
    reason: kept,
  },
  {
    scenario: 'an end while it is away',
    theirs: /^wait: error 5: .*$/m,
    ours: 'wait: {"exitStatus":7,"exitedAt":"set"}',
    reason: kept,
  },
  {
    scenario: 'an end while it is away',
    theirs: /^ctr tasks rm <c1>: .*not found.*$/m,
    ours: 'ctr tasks rm <c1>: {"exit":0,"stdout":"","stderr":"time=\\"<time>\\" level=warning msg=\\"task <c1> exit with non-zero exit code 7\\"\\n"}',
    reason: kept,
  },
];
