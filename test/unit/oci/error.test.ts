import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Code } from '../../../src/errors.ts';
import { classify, errorOf, lastLogError } from '../../../src/oci/error.ts';
import type { OciErrorKind } from '../../../src/oci/types.ts';
import type { CommandResult } from '../../../src/sys/command.ts';

const failed: CommandResult = {
  exitCode: 1,
  signal: undefined,
  stdout: '',
  stderr: '',
  timedOut: false,
  cancelled: false,
  durationMs: 1,
  spawnError: undefined,
};

// Real messages of runc 1.1.5, 1.3.6 and crun 1.28.
const said: readonly (readonly [string, OciErrorKind])[] = [
  ['container does not exist', 'not-found'],
  ['exec failed: container does not exist', 'not-found'],
  ['container `x1` does not exist: open `/run/crun/x1/status`: No such file or directory', 'not-found'],
  ['cannot open directory `/run/crun/x1`: No such file or directory', 'not-found'],
  ['runc create failed: container with given ID already exists', 'already-exists'],
  ['container `x1` already exists', 'already-exists'],
  ['container not running', 'not-running'],
  ['exec failed: cannot exec in a stopped container', 'not-running'],
  ['Container cannot be checkpointed in stopped state', 'not-running'],
  ['the container `x1` is not running', 'not-running'],
  ['cannot exec in a paused container (use --ignore-paused to override)', 'paused'],
  ['unable to signal init: os: process already finished', 'process-finished'],
  ['kill container: No such process', 'process-finished'],
  [
    'exec failed: unable to start container process: exec: "nope": executable file not found in $PATH',
    'missing-executable',
  ],
  [
    'runc create failed: unable to start container process: exec: "/etc": permission denied',
    'missing-executable',
  ],
  ['executable file `nope` not found in $PATH: No such file or directory', 'missing-executable'],
  ['criu failed: type NOTIFY errno 0\nlog file: /w/dump.log', 'criu'],
  ['CRIU restoring failed: -52', 'criu'],
  ['cannot delete container x1 that is not stopped: running', 'unknown'],
  ['rootfs container does not exist on this planet', 'unknown'],
];
for (const [message, kind] of said) {
  test(`"${message.slice(0, 60)}" is understood as ${kind}`, () => assert.equal(classify(message), kind));
}

test('the last error of a runc log counts, not a warning after it', () => {
  const log =
    '{"level":"error","msg":"first","time":"t"}\n{"level":"error","msg":"second","time":"t"}\n' +
    '{"level":"warning","msg":"later","time":"t"}\n';
  assert.equal(lastLogError(log), 'second');
});

test('an entry that crun spreads over several lines is read whole', () => {
  assert.equal(
    lastLogError('{\n  "msg": "no {braces} here",\n  "level": "error",\n  "time": "t"\n}\n'),
    'no {braces} here',
  );
});

test('a panic, a half-written line and an empty log are no error message', () => {
  for (const text of ['', 'panic: runtime error\n\tgoroutine 1', '{"level":"error","msg":"cut']) {
    assert.equal(lastLogError(text), undefined);
  }
});

test('a runtime that does not exist is named in double quotes', () => {
  const error = errorOf(
    'create',
    'web',
    'nope',
    { ...failed, exitCode: undefined, spawnError: 'ENOENT' },
    '',
  );
  assert.equal(error.kind, 'missing-runtime');
  assert.match(
    error.message,
    /^OCI runtime create failed: exec: "nope": executable file not found in \$PATH$/,
  );
});

test('a deadline and a caller that left are told apart from the runtime’s own failure', () => {
  const late = errorOf('checkpoint', 'web', 'runc', { ...failed, timedOut: true, signal: 'SIGKILL' }, '');
  assert.equal(late.code, Code.DeadlineExceeded);
  const gone = errorOf('checkpoint', 'web', 'runc', { ...failed, cancelled: true, signal: 'SIGKILL' }, '');
  assert.equal(gone.code, Code.Cancelled);
});

test('where the log is empty stderr speaks, and where that is empty too the exit status does', () => {
  assert.equal(
    errorOf('kill', 'web', 'runc', { ...failed, stderr: 'flag provided but not defined: -x\n' }, '').kind,
    'unsupported',
  );
  assert.match(errorOf('kill', 'web', 'runc', failed, '').message, /exit status 1$/);
});
