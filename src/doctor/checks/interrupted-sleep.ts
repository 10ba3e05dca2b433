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

/**
 * A first process that does nothing but sleep for a given time. CRIU cannot have the kernel go on with such a call: it
 * returns early, in the container that runs on as well as in those that are restored. Most programs then sleep again;
 * busybox's `sleep` ends, and its container with it.
 */
export const interruptedSleep: Check = (view) => {
  const known = numbers[process.arch];
  const init = view.processes.find(({ pid }) => pid === view.init);
  if (known === undefined || init === undefined) return [];
  const [call, , flags] = view.proc.read(`/proc/${init.pid}/syscall`).split(' ');
  const relative =
    Number(call) === known.nanosleep ||
    Number(call) === known.restart_syscall ||
    (Number(call) === known.clock_nanosleep && (Number(flags) & TIMER_ABSTIME) === 0);
  if (call === undefined || call === '' || !relative) return [];
  return [
    {
      name: 'interrupted-sleep',
      severity: 'warning',
      subject: nameProcess(init),
      message:
        'sleeps, and a checkpoint ends that early, as a signal would: where it does not sleep again the container ends',
      remedy:
        "let it wait in another way: a shell's loop around sleep, or coreutils' sleep, which sleeps again",
    },
  ];
};
