import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { hasErrno } from '../../../src/errors.ts';
import { runDir } from '../shim/shims.ts';
import { stack, until } from './stack.ts';

/** Waits until a process has gone, also as a zombie. */
export const ended = (pid: number): Promise<true> =>
  until(`process ${pid} to end`, () => (existsSync(`/proc/${pid}`) ? undefined : true));

/** Without the program kill, which a small system does not have. A process that is gone already is no error. */
export function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    if (!hasErrno(error, 'ESRCH')) throw error;
  }
}

/** Ends the shim that serves namespace `default`, where there is one. */
export async function endResidentShim(name: NodeJS.Signals): Promise<void> {
  const resident = join(runDir, 'resident', stack.address, 'default/shim');
  if (!existsSync(resident)) return;
  const pid = Number(readFileSync(resident, 'utf8').split(' ')[0]);
  signal(pid, name);
  await ended(pid);
}
