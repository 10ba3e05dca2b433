import { readFileSync, writeFileSync } from 'node:fs';
import { check, native } from './libc.ts';

// prctl(2), setsid(2)
const prctl = native<[number, number, number, number, number]>(
  'int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)',
);
const setsid = native<[]>('int setsid()');

const SIGKILL = 9;
const PR_SET_PDEATHSIG = 1;
const PR_SET_CHILD_SUBREAPER = 36;
const PR_SCHED_CORE = 62;
const PR_SCHED_CORE_CREATE = 1;
const PIDTYPE_TGID = 1;

/**
 * Has SIGUSR1 do nothing. Node would open its debugger for it, on a port of this host, to whoever can connect to that, and with the
 * rights that we have: https://nodejs.org/api/process.html#signal-events.
 */
export function refuseDebugger(): void {
  process.on('SIGUSR1', () => undefined);
}

/** From now on orphaned descendants become children of this process: PR_SET_CHILD_SUBREAPER, prctl(2). */
export function becomeSubreaper(): void {
  check('prctl', prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 'PR_SET_CHILD_SUBREAPER');
}

/** The kernel kills this process when the one that started it ends, PR_SET_PDEATHSIG in prctl(2). */
export function dieWithParent(): void {
  check('prctl', prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), 'PR_SET_PDEATHSIG');
}

/**
 * Leaves the caller's session and process group, setsid(2).
 * @throws SysError EPERM when this process leads its group already
 */
export function leaveSession(): void {
  check('setsid', setsid());
}

/**
 * Gives this process and what it starts a core scheduling cookie of their own, PR_SCHED_CORE in prctl(2).
 * @throws SysError EINVAL on kernels without core scheduling, ENODEV without SMT
 */
export function createCoreSchedulingCookie(): void {
  check('prctl', prctl(PR_SCHED_CORE, PR_SCHED_CORE_CREATE, 0, PIDTYPE_TGID, 0), 'PR_SCHED_CORE');
}

/** The highest oom_score_adj, proc(5). */
const MAX_OOM_SCORE = 1000;

/**
 * Makes the kernel end this process before its parent when memory is short, by one point of oom_score_adj: proc(5). Its
 * children inherit it.
 */
export function yieldToParent(): void {
  const own = Number(readFileSync('/proc/self/oom_score_adj', 'utf8'));
  if (own < MAX_OOM_SCORE) writeFileSync('/proc/self/oom_score_adj', String(own + 1));
}

/** Field 22 of /proc/PID/stat, proc(5); empty when the process is gone. */
export function startTimeOf(pid: number): string {
  return statOf(pid)[19] ?? '';
}

/** Whether a process runs yet; one that has ended and waits for its parent to ask does not. */
export function isAlive(pid: number, startTime: string): boolean {
  const fields = statOf(pid);
  return fields[19] === startTime && fields[0] !== 'Z' && fields[0] !== 'X';
}

/** Whether a process stands still as SIGSTOP has it: state T, proc(5). */
export function isStopped(pid: number): boolean {
  return statOf(pid)[0] === 'T';
}

/** What a process's first thread does. */
export interface ThreadState {
  /** As SIGSTOP has it: state T, proc(5). */
  readonly isStopped: boolean;
  /** Neither runs, nor waits for a processor or a disk: states S and T. */
  readonly isIdle: boolean;
  /** Processor time since its start, in milliseconds, to a hundredth of a second. */
  readonly usedMs: number;
}

/** Clock ticks of /proc are hundredths of a second on every architecture that Node runs on, USER_HZ in time(7). */
const TICK_MS = 10;

/** What a process's first thread does, /proc/PID/task/PID/stat in proc(5); undefined where it is gone. */
export function threadOf(pid: number): ThreadState | undefined {
  const fields = statOf(`${pid}/task/${pid}`);
  if (fields.length < 2) return undefined;
  const [user, kernel] = [Number(fields[11]), Number(fields[12])];
  const [state = ''] = fields;
  return { isStopped: state === 'T', isIdle: 'ST'.includes(state), usedMs: (user + kernel) * TICK_MS };
}

/** The fields of /proc/PID/stat from the third on: the name before them may hold blanks itself. */
function statOf(pid: number | string): string[] {
  let stat = '';
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch {
    // It is gone.
  }
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
}
