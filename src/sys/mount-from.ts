import { Worker } from 'node:worker_threads';
import { SysError } from './libc.ts';

/** Arguments of mount(2). */
export interface MountCall {
  readonly source: string;
  readonly target: string;
  readonly type: string;
  readonly flags: number;
  readonly data: string;
}

/** What the thread is given, and what it answers: the call that failed with its errno, or nothing. */
export interface MountFromJob {
  readonly folder: string;
  readonly call: MountCall;
}
export interface MountFromAnswer {
  readonly failed?: { readonly syscall: string; readonly errno: number };
}

/**
 * Mounts with options that are relative to a folder, on a thread whose working folder that is: all others share one, and mount(2)
 * may wait for a disk. Starting the thread takes as long as several mounts, so only where the options are too long otherwise.
 * @param subject for the error
 * @throws SysError of chdir or mount
 */
export async function mountFrom(
  folder: string,
  { source, target, type, flags, data }: MountCall,
  subject: string,
): Promise<void> {
  const job: MountFromJob = { folder, call: { source, target, type, flags, data } };
  const worker = new Worker(program(), { workerData: job, stdin: false });
  const { failed } = await new Promise<MountFromAnswer>((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', reject);
    worker.once('exit', () => reject(new Error(`the thread that was to mount ${subject} has ended`)));
  });
  if (failed !== undefined) throw new SysError(failed.syscall, failed.errno, subject);
}

/** Beside this file, or beside the program that it was bundled into: scripts/build.ts. */
function program(): URL {
  const own = import.meta.url;
  return new URL(own.endsWith('.ts') ? './mount-from-worker.ts' : './mount-from-worker.mjs', own);
}
