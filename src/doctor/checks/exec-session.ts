import { nameProcess } from '../container-view.ts';
import type { Check } from '../obstacle.ts';

/** Processes that joined from outside. A dump holds the first process and its descendants alone. */
export const execSession: Check = (view) =>
  view.joined
    .filter(({ parent }) => !view.joined.some(({ pid }) => pid === parent))
    .map((process) => {
      const exec = view.execs.get(process.pid);
      return {
        name: exec === undefined ? 'joined-process' : 'exec-session',
        severity: 'warning',
        subject: nameProcess(process),
        message: `${exec === undefined ? 'joined the container from outside' : `is the exec session ${exec}`}: a checkpoint does not hold it, and after a restore it is gone`,
        remedy:
          exec === undefined
            ? 'end it before a checkpoint that it matters to, and start it again after a restore'
            : 'end it before a checkpoint that it matters to (stasis checkpoint --exec-sessions wait or kill), and start it again after a restore',
      };
    });
