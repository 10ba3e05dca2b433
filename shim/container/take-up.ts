// What of a task is only for the worker that follows in the same shim, and what that one makes of it.
import { existsSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { CreateTaskRequest, ExecProcessRequest } from '../../src/proto/gen/containerd/task.ts';
import type { ExecProcess } from '../process/exec.ts';
import { exitRecord, type ExecTakeUp, type TakeUp, type TaskRecord } from './record.ts';

export function encodeCreate(request: CreateTaskRequest): string {
  return Buffer.from(CreateTaskRequest.encode(request).finish()).toString('base64');
}

export function decodeCreate({ request }: TakeUp): CreateTaskRequest {
  return CreateTaskRequest.decode(Buffer.from(request, 'base64'));
}

export function decodeExec({ request }: ExecTakeUp): ExecProcessRequest {
  return ExecProcessRequest.decode(Buffer.from(request, 'base64'));
}

/** An exec, with what was asked for it. */
export interface KnownExec {
  readonly process: ExecProcess;
  readonly request: string;
  starting: boolean;
  startTime: string;
}

export function encodeExec(request: ExecProcessRequest): string {
  return Buffer.from(ExecProcessRequest.encode(request).finish()).toString('base64');
}

export function describeExec({ process, request, starting, startTime }: KnownExec): ExecTakeUp {
  return { id: process.id, request, starting, startTime, ...exitRecord(process.exit) };
}

/** What a process runs; empty where it has ended. */
export function programOf(pid: number): string {
  try {
    return readlinkSync(`/proc/${pid}/exe`);
  } catch {
    return '';
  }
}

/**
 * Whether a created container's first process was let go on, though nobody wrote that down: the OCI runtime's FIFO is gone, or the
 * process is another program by now, or has ended after somebody had begun to start it.
 */
export function hasStarted({ id, pid, runtime, takeUp }: TaskRecord): boolean {
  if (!existsSync(join(runtime.root, id, 'exec.fifo'))) return true;
  const program = programOf(pid);
  return program === '' ? takeUp?.starting === true : program !== takeUp?.waitingAs;
}
