import type { Events } from '../events/queue.ts';
import type { Exit } from '../reaper/reaper.ts';
import { timestamp } from '../timestamp.ts';

/** Tells how a process has ended. @param id the container's for its first process, the exec id for others */
export function publishExit(events: Events, containerId: string, id: string, exit: Exit): void {
  const { pid, status: exitStatus } = exit;
  events.publish('exit', { containerId, id, pid, exitStatus, exitedAt: timestamp(exit) });
}
