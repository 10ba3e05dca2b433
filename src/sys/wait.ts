import { constants } from 'node:os';
import { check, native } from './libc.ts';

// waitid(2); the offsets are those of siginfo_t on 64-bit Linux, sigaction(2).
const waitid = native<[number, number, Buffer, number]>(
  'int waitid(int idtype, unsigned int id, void *info, int options)',
);

const P_ALL = 0;
const P_PID = 1;
const WNOHANG = 1;
const WEXITED = 4;
const WNOWAIT = 0x01000000;
const CLD_EXITED = 1;
const SIGINFO_SIZE = 128;
const OFFSET_CODE = 8;
const OFFSET_PID = 16;
const OFFSET_STATUS = 24;

const info = Buffer.alloc(SIGINFO_SIZE);

export interface Exited {
  readonly pid: number;
  /** The exit code, or 128 + the signal's number. */
  readonly status: number;
  /** Name of the signal that ended it, `SIGKILL`; undefined where it ended by itself. */
  readonly signal?: string;
}

const signalNames = new Map(Object.entries(constants.signals).map(([name, number]) => [number, name]));

function wait(idtype: number, id: number, options: number): Exited | undefined {
  info.fill(0);
  check('waitid', waitid(idtype, id, info, options));
  const pid = info.readInt32LE(OFFSET_PID);
  if (pid === 0) return undefined;
  const status = info.readInt32LE(OFFSET_STATUS);
  if (info.readInt32LE(OFFSET_CODE) === CLD_EXITED) return { pid, status };
  return { pid, status: 128 + status, signal: signalNames.get(status) ?? `SIG${status}` };
}

/**
 * A child that has exited and that nobody has waited for yet, left as it is; undefined where there is none.
 * @throws SysError ECHILD when there are no children at all
 */
export function peekExited(): Exited | undefined {
  return wait(P_ALL, 0, WEXITED | WNOHANG | WNOWAIT);
}

/**
 * Reaps one child if it has exited.
 * @throws SysError ECHILD when that process is not our child
 */
export function reap(pid: number): Exited | undefined {
  return wait(P_PID, pid, WEXITED | WNOHANG);
}
