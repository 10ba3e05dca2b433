import { nameProcess } from '../container-view.ts';
import type { Check } from '../obstacle.ts';

interface Numbers {
  readonly nanosleep: number;
  readonly clock_nanosleep: number;
  readonly restart_syscall: number;
}

/** Of the system calls: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h. */
const numbers: Readonly<Record<string, Numbers>> = {
  x64: { nanosleep: 35, clock_nanosleep: 230, restart_syscall: 219 },
  arm64: { nanosleep: 101, clock_nanosleep: 115, restart_syscall: 128 },
};
const TIMER_ABSTIME = 1;

/** Children's shorter sleeps are a loop's rhythm, and a shell has such a child at almost any time. */
const LONG_SECONDS = 10n;

/**
 * A process that does nothing but sleep for a given time; a child only where that is long. CRIU cannot have the kernel go on
 * with such a call: it returns early, in the container that runs on as well as in those that are restored. Most programs then
 * sleep again; busybox's `sleep` ends, and the container with it where it is the first process.
 */
export const interruptedSleep: Check = (view) => {
  const known = numbers[process.arch];
  if (known === undefined) return [];
  return view.processes
    .filter(({ pid }) => {
      const text = view.proc.read(`/proc/${pid}/syscall`);
      const [call, ...args] = text.split(' ');
      if (call === undefined || call === '') return false;
      const isFirst = pid === view.init;
      switch (Number(call)) {
        case known.restart_syscall: // of how long a call is not to be seen
          return isFirst;
        case known.nanosleep:
          return isFirst || isLong(view.proc.memory(pid, BigInt(args[0] ?? 0), 8));
        case known.clock_nanosleep:
          if ((Number(args[1]) & TIMER_ABSTIME) !== 0) return false;
          return isFirst || isLong(view.proc.memory(pid, BigInt(args[2] ?? 0), 8));
        default:
          return false;
      }
    })
    .map((one) => ({
      name: 'interrupted-sleep',
      severity: 'warning',
      subject: nameProcess(one),
      message: `sleeps, and a checkpoint ends that early, as a signal would: where it does not sleep again ${
        one.pid === view.init ? 'the container ends' : 'it goes on at once'
      }`,
      remedy:
        "let it wait in another way: a shell's loop around sleep, or coreutils' sleep, which sleeps again",
    }));
};

/** By the seconds of a timespec, which come first in it (clock_nanosleep(2)). */
function isLong(seconds: Buffer | undefined): boolean {
  return seconds !== undefined && seconds.readBigInt64LE() >= LONG_SECONDS;
}
