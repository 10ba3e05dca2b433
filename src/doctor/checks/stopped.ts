import { nameProcess } from '../container-view.ts';
import type { Check } from '../obstacle.ts';

/** Stopped processes on cgroup v1: CRIU cannot seize what is stopped and frozen at once, see checkpoint/dump.ts. */
export const stopped: Check = (view) => {
  if (!/^\d+:[^:]*\bfreezer\b/m.test(view.proc.read(`/proc/${view.init}/cgroup`))) return [];
  return view.processes
    .filter(({ pid }) => /^State:\s*T/m.test(view.proc.read(`/proc/${pid}/status`)))
    .map((process) => ({
      name: 'stopped',
      severity: 'error',
      subject: nameProcess(process),
      message: 'was stopped by a signal, and CRIU cannot seize it while cgroup v1 freezes it',
      remedy: `let it go on (kill -CONT ${process.pid}), end it, or boot the host with cgroup v2`,
    }));
};
