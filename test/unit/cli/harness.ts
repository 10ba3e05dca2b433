// What the tests of the command line share: a stasisd that answers as it is told, and a run of the command line in
// this process or in one of its own.
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import type { Server as SocketServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type GrpcHandlers, GrpcServer } from '../../../src/api/grpc-server.ts';
import { run } from '../../../src/cli/run.ts';
import { Unimplemented } from '../../../src/errors.ts';
import type { Timestamp } from '../../../src/proto/gen/google/protobuf/timestamp.ts';
import {
  type Checkpoint,
  Checkpoint as CheckpointMessage,
  type DeepPartial,
  StasisDefinition,
} from '../../../src/proto/gen/stasis/stasis.ts';

export type Handlers = GrpcHandlers<typeof StasisDefinition>;

/** A stasisd on a socket of its own, with the handlers of the test; the others answer Unimplemented. */
export class FakeDaemon implements AsyncDisposable {
  readonly socket: string;
  readonly #folder: string;
  readonly #server: GrpcServer;
  #sockets: SocketServer | undefined;

  private constructor(folder: string, server: GrpcServer) {
    this.#folder = folder;
    this.#server = server;
    this.socket = join(folder, 'stasisd.sock');
  }

  static async start(handlers: Partial<Handlers>): Promise<FakeDaemon> {
    const daemon = new FakeDaemon(await mkdtemp(join(tmpdir(), 'stasis-cli-')), new GrpcServer());
    const all = { ...refusals(), ...handlers };
    daemon.#server.addService(StasisDefinition, all);
    daemon.#sockets = await daemon.#server.listen(daemon.socket);
    return daemon;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#sockets?.close();
    await this.#server.close(0);
    await rm(this.#folder, { recursive: true, force: true });
  }
}

function refusals(): Handlers {
  const refuse = async (): Promise<never> => {
    throw new Unimplemented('not in this test');
  };
  const refuseStream = (): AsyncIterable<never> => ({ [Symbol.asyncIterator]: () => ({ next: refuse }) });
  return {
    checkpoint: refuseStream,
    checkpointSet: refuseStream,
    restore: refuseStream,
    wait: refuse,
    restoreSet: refuseStream,
    clone: refuseStream,
    run: refuseStream,
    list: refuse,
    inspect: refuse,
    remove: refuse,
    info: refuse,
    version: refuse,
    adopt: refuse,
    diskUsage: refuse,
    doctor: refuse,
    cancel: refuse,
  };
}

export interface Outcome {
  code: number;
  stdout: string;
  stderr: string;
}

export interface RunOptions {
  env?: NodeJS.ProcessEnv;
  signal?: AbortSignal;
  now?: number;
  /** stderr is a terminal. */
  terminal?: boolean;
  cwd?: string;
}

/** Runs a command line in this process. */
export async function stasis(argv: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  const outcome: Outcome = { code: -1, stdout: '', stderr: '' };
  outcome.code = await run(argv, {
    env: options.env ?? {},
    cwd: () => options.cwd ?? tmpdir(),
    stdout: { write: (text) => (outcome.stdout += text) },
    stderr: { write: (text) => (outcome.stderr += text), isTTY: options.terminal === true },
    signal: options.signal ?? new AbortController().signal,
    now: () => options.now ?? Date.now(),
  });
  return outcome;
}

/** Runs a command line against a daemon with these handlers. */
export async function against(
  handlers: Partial<Handlers>,
  argv: readonly string[],
  options: RunOptions = {},
): Promise<Outcome> {
  await using daemon = await FakeDaemon.start(handlers);
  return await stasis(argv, { ...options, env: { STASIS_ADDRESS: daemon.socket, ...options.env } });
}

/** A process of its own. `during` may send it signals, or read what it has printed so far. */
export async function stasisProcess(
  argv: readonly string[],
  env: NodeJS.ProcessEnv = {},
  during?: (child: ReturnType<typeof spawn>) => void,
): Promise<Outcome & { signal: NodeJS.Signals | null }> {
  const main = join(import.meta.dirname, '../../../src/cli/main.ts');
  const child = spawn(process.execPath, [main, ...argv], { env, timeout: 20_000, killSignal: 'SIGKILL' });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  during?.(child);
  return await new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => resolve({ code: code ?? -1, signal, stdout, stderr }));
  });
}

/** 2026-01-02T03:04:05Z, when everything in the tests happens. */
export const now = Date.UTC(2026, 0, 2, 3, 4, 5);

/** So many seconds before `now`. */
export function ago(seconds: number): Timestamp {
  return { seconds: BigInt(now / 1000 - seconds), nanos: 0 };
}

export function aCheckpoint(fields: DeepPartial<Checkpoint> = {}): Checkpoint {
  return CheckpointMessage.fromPartial({
    id: `id-${fields.name ?? 'one'}`,
    namespace: 'default',
    container: 'web',
    name: 'one',
    createdAt: ago(60),
    memory: 1,
    memoryBytes: 8n << 20n,
    snapshot: `tank/stasis/containers/default/web@${fields.name ?? 'one'}`,
    uniqueBytes: 1536n,
    timings: { frozenNs: 23_400_000n, totalNs: 61_000_000n },
    image: 'busybox',
    ...fields,
  });
}
