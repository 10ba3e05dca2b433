import { closeSync, openSync, readdirSync, readSync } from 'node:fs';

/**
 * A process of which a thread sleeps in the kernel at a place by the name of a function: proc_pid_wchan(5). On this thread:
 * the file takes no lock, so there is nothing to wait for.
 */
export function findSleeper(pids: readonly number[], place: RegExp): number | undefined {
  const buffer = Buffer.alloc(64);
  return pids.find((pid) =>
    threadsOf(pid).some((thread) => place.test(readSmall(`/proc/${pid}/task/${thread}/wchan`, buffer))),
  );
}

/**
 * A process that was stopped by a signal (SIGSTOP, SIGTSTP), also while its cgroup is frozen, when its state in /proc is
 * that of any frozen one.
 */
export function findStopped(pids: readonly number[]): number | undefined {
  return findSleeper(pids, /^do_signal_stop\b/);
}

function threadsOf(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/task`);
  } catch {
    return []; // it has ended
  }
}

function readSmall(path: string, buffer: Buffer): string {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch {
    return ''; // it has ended
  }
  try {
    return buffer.toString('latin1', 0, readSync(fd, buffer, 0, buffer.length, 0));
  } catch {
    return '';
  } finally {
    closeSync(fd);
  }
}
