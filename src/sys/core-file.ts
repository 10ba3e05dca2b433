import { readFileSync } from 'node:fs';
import { check, native } from './libc.ts';

// prctl(2)
const prctl = native<[number, number, number, number, number]>(
  'int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)',
);

const PR_SET_DUMPABLE = 4;
/** Bit of CAP_SYS_PTRACE in a set of capabilities of proc_pid_status(5). */
const SYS_PTRACE = 1n << 19n;

/**
 * Has the kernel write no core file of this process, whatever ends it: PR_SET_DUMPABLE, prctl(2). What it starts is as usual, which a
 * limit of core files would not be: containers have that of whoever starts them. Others of its user then need CAP_SYS_PTRACE to look
 * into it, or to take its descriptors; where we have not got that ourselves, nothing is done.
 * @returns whether it was done
 */
export function refuseCoreFile(): boolean {
  const status = readFileSync('/proc/self/status', 'latin1');
  const capabilities = BigInt(`0x${/^CapEff:\s*(\w+)$/m.exec(status)?.[1] ?? '0'}`);
  if ((capabilities & SYS_PTRACE) === 0n) return false;
  check('prctl', prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), 'PR_SET_DUMPABLE');
  return true;
}
