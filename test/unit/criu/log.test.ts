import assert from 'node:assert/strict';
import { test } from 'node:test';
import { describeFailure, lastError, parseLastError } from '../../../src/criu/log.ts';

test('the error that says what failed counts, not those that follow from it', () => {
  const log = `
(00.001065) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted
(00.014) Dumping task
(00.015) Error (criu/sk-inet.c:191): inet: Connected TCP socket, consider using --tcp-established option.
(00.016) Error (criu/cr-dump.c:1781): Dump files (pid: 77) failed with -1
(00.017) Error (criu/cr-dump.c:2125): Dumping FAILED.
`;
  const failure = parseLastError(log);
  assert.equal(failure?.message, 'inet: Connected TCP socket, consider using --tcp-established option.');
  assert.match(failure === undefined ? '' : describeFailure(failure), /\(it has open TCP connections\)$/);
});

test('an error of a restored task is read without its pid', () => {
  const log = `(00.020)      1: Error (criu/files-reg.c:2145): File bin/x has bad size 3 (expect 4)
(00.021) Error (criu/cr-restore.c:2536): Restoring FAILED.`;
  assert.equal(parseLastError(log)?.message, 'File bin/x has bad size 3 (expect 4)');
});

test('a file that cannot be opened again is named', () => {
  const log = `(00.220293)     27: Error (criu/files-reg.c:2353): Can't open file data/1262 on restore: Permission denied
(00.220297)     27: Error (criu/files-reg.c:2267): Can't open file data/1262: Permission denied
(00.220299)     27: Error (criu/files.c:1221): Unable to open fd=6 id=0x44
(00.257608) Error (criu/cr-restore.c:2331): Restoring FAILED.
(00.267338) Error (criu/cgroup.c:2055): cg: cgroupd: recv req error: No such file or directory`;
  assert.equal(parseLastError(log)?.message, "Can't open file data/1262: Permission denied");
});

test('where CRIU only says that it failed, that is the reason', () => {
  assert.equal(
    parseLastError('(00.1) Error (criu/cr-dump.c:1): Dumping FAILED.')?.message,
    'Dumping FAILED.',
  );
});

test('a log without an error, and no log, give no reason', async () => {
  assert.equal(parseLastError('(00.1) all is well\n'), undefined);
  assert.equal(await lastError('/nonexistent/dump.log'), undefined);
});

test('what CRIU says as it lets go of tasks that it never stopped is not the reason', () => {
  const log = `
(10.043076) Error (criu/cr-dump.c:1655): Timeout reached. Try to interrupt: 0
(10.043232) Error (compel/src/lib/infect.c:262): Unseizable non-zombie 12 found, state D, err -1/4
(10.043400) Error (compel/src/lib/infect.c:417): Unable to detach from 12: No such process
(10.043414) Error (criu/cr-dump.c:1975): Dumping FAILED.
`;
  const failure = parseLastError(log);
  assert.equal(failure?.message, 'Unseizable non-zombie 12 found, state D, err -1/4');
  assert.match(failure === undefined ? '' : describeFailure(failure), /vfork/);
});

test('a connection that is just being made is known as of that moment alone, and an open one is not', () => {
  const passing = (message: string): boolean | undefined =>
    parseLastError(`(00.1) Error (criu/sk.c:1): ${message}\n`)?.passing;
  for (const message of [
    'unix: Non-empty write queue on an in-flight socket 0x1f',
    'inet: In-flight connection (l) for 1d07',
    'inet: Unknown inet socket 3f2a state 2',
    'inet: Unknown inet socket 3f2a state 3',
  ])
    assert.equal(passing(message), true, message);
  for (const message of [
    'inet: Connected TCP socket, consider using --tcp-established option.',
    'inet: Unknown inet socket 3f2a state 10',
  ])
    assert.equal(passing(message), false, message);
});

test('an option of CRIU’s that nobody can give is not proposed', () => {
  const log = `(00.1) Error (criu/sk-inet.c:185): inet: In-flight connection (l) for 1d07
(00.1) Error (criu/sk-inet.c:186): inet: In-flight connections can be ignored with the --skip-in-flight option.
`;
  assert.equal(parseLastError(log)?.message, 'inet: In-flight connection (l) for 1d07');
});
