import { nameProcess } from '../container-view.ts';
import type { Check } from '../obstacle.ts';

/** A process has one tracer at most, and CRIU has to be it: ptrace(2). */
export const tracer: Check = (view) =>
  view.processes
    .filter((process) => process.tracer !== 0)
    .map((process) => ({
      name: 'tracer',
      severity: 'error',
      subject: nameProcess(process),
      message: `is traced by process ${process.tracer}, so that CRIU cannot seize it`,
      remedy: 'end the debugger or strace that is attached to it',
    }));
