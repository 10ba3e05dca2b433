import { readFileSync } from 'node:fs';

const SIGKILL_BIT = 1n << 8n;

/**
 * Whether a process has ended, or cannot but end: it is a zombie, or a SIGKILL waits for it, which a frozen or traced task
 * takes later. proc_pid_status(5), `State` and `ShdPnd`.
 */
export function isDying(pid: number): boolean {
  let status: string;
  try {
    status = readFileSync(`/proc/${pid}/status`, 'latin1');
  } catch {
    return true;
  }
  const field = (name: string): string => new RegExp(`^${name}:\\s*(\\S+)`, 'm').exec(status)?.[1] ?? '';
  const pending = BigInt(`0x${field('ShdPnd') || '0'}`);
  return /^[ZXx]/.test(field('State')) || (pending & SIGKILL_BIT) !== 0n;
}
