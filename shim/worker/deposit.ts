import {
  ConnectRequest,
  ConnectResponse,
  PidsRequest,
  PidsResponse,
} from '../../src/proto/gen/containerd/task.ts';
import { version } from '../../src/version.ts';
import { HEADER_LENGTH, type MessageType } from '../../ttrpc/index.ts';
import { encodeResponse } from '../../ttrpc/message.ts';
import type { Deposit } from '../guard/messages.ts';

/** Leaves answers with the guard. */
export interface Depository {
  /** @param deposits all of that task's from now on; none where it is no more */
  deposit(task: string, deposits: readonly Deposit[]): void;
}

/**
 * What the guard answers a restarted containerd where no worker does in time: it asks these two of each task, and ends one for which they are not
 * answered within five seconds, or with no process. One process is enough, whether it has ended or not; a task that waits for its restore
 * has none, and says 0.
 */
export function depositsOf(id: string, shimPid: number, taskPid: number): Deposit[] {
  return [
    deposit(
      'Connect',
      ConnectRequest.encode({ id }).finish(),
      encode(ConnectResponse, { shimPid, taskPid, version }),
    ),
    deposit(
      'Pids',
      PidsRequest.encode({ id }).finish(),
      encode(PidsResponse, { processes: [{ pid: taskPid, info: undefined }] }),
    ),
  ];
}

function encode<T>(type: MessageType<T>, message: T): Uint8Array {
  return encodeResponse(0, type, message).subarray(HEADER_LENGTH);
}

function deposit(method: string, payload: Uint8Array, body: Uint8Array): Deposit {
  return { method, payload: base64(payload), body: base64(body) };
}

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
