// The guard's own program is replaced by execve(2): pid, children and descriptors stay, and all else goes through a file in memory.
import { spawn } from 'node:child_process';
import type { Server, Socket } from 'node:net';
import { Unimplemented } from '../../src/errors.ts';
import { closeOverExec, keepOverExec } from '../../src/sys/descriptor.ts';
import { takeMemoryFile, writeMemoryFile } from '../../src/sys/memory-file.ts';
import type { DepositEntries } from './deposits.ts';
import type { GuardOptions } from './guard.ts';
import type { ExitNote } from './messages.ts';
import type { OutboxState } from './outbox.ts';
import type { RestartsState } from './restarts.ts';
import type { SessionState } from './session.ts';
import type { WorkerState } from './worker-process.ts';

/** Goes up with each change of `GuardState`. A program takes over what has its own number alone. */
export const STATE_FORMAT = 2;

/**
 * Of V8's threads, which collect garbage beside the program and compile what it runs often, one is enough here: each that is used keeps
 * more than a megabyte of the C library's memory.
 */
const NODE_OPTIONS = ['--v8-pool-size=1'];

/** What Node is called with for a guard. */
export function guardCommand(program: string, ...args: readonly string[]): string[] {
  return [...NODE_OPTIONS, program, ...args];
}

/** All of a guard, as the program has it that takes its place. */
export interface GuardState extends RestartsState {
  readonly options: GuardOptions;
  /** Descriptors of those that listen: for clients, and for questions about the guard. */
  readonly listeners: readonly number[];
  readonly held: readonly (readonly [name: string, fd: number])[];
  readonly exits: readonly ExitNote[];
  readonly sessions: readonly SessionState[];
  readonly outbox: OutboxState;
  /** None where that program did not know of them. */
  readonly deposits?: DepositEntries;
  /** Descriptor of the memory for notes; none where that program did not know of it. */
  readonly notes?: number;
  readonly worker: WorkerState;
  readonly terminates: boolean;
  /** Who has asked for this, and the answer. */
  readonly asker: { readonly fd: number; readonly answer: string };
}

/** What the installed program says of itself. */
export interface Installed {
  readonly version: string;
  readonly protocol: number;
}

const CHECK_MS = 30_000;
const MAX_SAID = 2000;

/**
 * Starts the installed program beside this one, which loads all of it and says what it is.
 * @param program the guard's own
 * @param started is told of the child's pid, and called again with it when it has ended
 * @throws an Error with the reason where it does not start, or cannot take over from this one
 */
export async function checkSuccessor(
  program: string,
  started: (pid: number, lives: boolean) => void,
): Promise<Installed> {
  const child = spawn(process.execPath, guardCommand(program, 'check', String(STATE_FORMAT)), {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: CHECK_MS,
    killSignal: 'SIGKILL',
    cwd: '/',
  });
  const pid = child.pid ?? 0;
  started(pid, true);
  let [out, said] = ['', ''];
  child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (said = (said + chunk.toString()).slice(-MAX_SAID)));
  const how = await new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('close', (code, signal) => resolve(code === 0 ? '' : `${signal ?? `exit code ${code}`}`));
  });
  started(pid, false);
  if (how !== '') throw new Error(`the installed guard does not start: ${said.trim() || how}`);
  return JSON.parse(out) as Installed;
}

/** Goes on as the installed program. @throws only where this Node cannot: what comes after is the other program's */
export function become(program: string, state: GuardState): never {
  if (process.execve === undefined) throw new Unimplemented('this Node cannot become another program');
  for (const fd of descriptorsOf(state)) keepOverExec(fd);
  const memory = writeMemoryFile('guard', JSON.stringify(state));
  const node = process.execPath;
  process.execve(node, [node, ...guardCommand(program, 'resume', String(memory))], process.env);
  throw new Unimplemented('this Node could not become another program');
}

/** What the program before this one has left. */
export function takeState(fd: number): GuardState {
  const state = JSON.parse(takeMemoryFile(fd)) as GuardState;
  for (const kept of descriptorsOf(state)) closeOverExec(kept);
  return state;
}

function descriptorsOf(state: GuardState): number[] {
  const { options, listeners, held, sessions, outbox, notes, worker, asker } = state;
  const many = [...listeners, ...held.map(([, fd]) => fd), ...sessions.map(({ fd }) => fd)];
  if (outbox.fd !== undefined) many.push(outbox.fd);
  if (notes !== undefined) many.push(notes);
  return [options.lock, ...many, worker.channel, worker.stderr, asker.fd];
}

/** A socket's descriptor. @throws an Error where it has none any more */
export function descriptorOf(socket: Socket | Server): number {
  const { _handle: handle } = socket as unknown as { readonly _handle?: { readonly fd?: number } | null };
  if (handle?.fd === undefined || handle.fd < 0) throw new Error('a socket is closed');
  return handle.fd;
}
