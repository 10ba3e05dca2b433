// The thread of mount-from.ts.
import { parentPort, workerData } from 'node:worker_threads';
import { SysError } from './libc.ts';
import { mountNow } from './mount.ts';
import type { MountFromAnswer, MountFromJob } from './mount-from.ts';
import { enterOwnFolder } from './thread-root.ts';

const { folder, call } = workerData as MountFromJob;
let answer: MountFromAnswer = {};
try {
  enterOwnFolder(folder);
  mountNow(call);
} catch (error) {
  if (!(error instanceof SysError)) throw error;
  answer = { failed: { syscall: error.syscall, errno: error.errno } };
}
parentPort?.postMessage(answer);
