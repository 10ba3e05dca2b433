// Which runtimes' ended containers are removed without them.
import { deleteOfCrun, knowsDeleteOfCrun } from './crun-delete.ts';
import { deleteOfRunc, knowsDeleteOfRunc } from './runc-delete.ts';
import type { RuntimeBinary } from './types.ts';

/**
 * Removes what a runtime has of an ended container.
 * @param folder the runtime's for this container
 * @param pid of its first process, which has been waited for
 * @returns whether it is done; otherwise the runtime's own `delete` is to do it, or to say what is wrong
 */
export type DirectDelete = (folder: string, pid: number) => boolean;

/** @returns undefined of a runtime whose `delete` is not known to do just that */
export function directDeleteOf(binary: RuntimeBinary): DirectDelete | undefined {
  if (knowsDeleteOfCrun(binary)) return (folder, pid) => deleteOfCrun(folder, pid);
  if (knowsDeleteOfRunc(binary)) return (folder, pid) => deleteOfRunc(folder, pid);
  return undefined;
}
