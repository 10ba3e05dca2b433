import { closeSync, readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { Socket } from 'node:net';
import { join } from 'node:path';
import { findProgram } from '../criu/find.ts';
import { describeFailure, lastError } from '../criu/log.ts';
import { Code, StasisError } from '../errors.ts';
import type { CommandResult, Exec } from '../sys/command.ts';
import { pipe } from '../sys/descriptor.ts';
import type { PageServer, PageServerEnd, PageServerRequest, PageServers } from './page-server.ts';

const logName = 'lazy-pages.log';

/** setTimeout knows no more. What is too long is the shim's to say (shim/container/fill.ts). */
const NO_LIMIT_MS = 2 ** 31 - 1;

/** CRIU's page server, `criu lazy-pages`: https://criu.org/Lazy_migration. */
export class CriuPageServers implements PageServers {
  readonly #exec: Exec;
  readonly #criu: string;

  /** @param criu `runtime.criu` of the configuration: a name on PATH, or a path */
  constructor(exec: Exec, criu: string) {
    this.#exec = exec;
    this.#criu = criu;
  }

  async start({ imageDir, workDir }: PageServerRequest): Promise<PageServer> {
    const path = await findProgram(this.#criu);
    await mkdir(workDir, { recursive: true, mode: 0o711 });
    const ready = pipe();
    const stop = new AbortController();
    let pid = 0;
    const folders = ['--images-dir', imageDir, '--work-dir', workDir];
    const result = this.#exec(
      path,
      ['lazy-pages', ...folders, '--log-file', logName, '-v1', '--status-fd', '1'],
      {
        cwd: '/',
        stdioFds: ['ignore', ready.write, 'ignore'],
        timeoutMs: NO_LIMIT_MS,
        signal: stop.signal,
        onStart: (started) => (pid = started),
      },
    );
    closeSync(ready.write);
    const ended = result.then((end) => endOf(end, join(workDir, logName)));
    if (!(await saysReady(ready.read))) {
      stop.abort();
      const { why } = await ended;
      throw new StasisError(Code.Unknown, `the page server could not be started: ${why}`, {
        subject: imageDir,
      });
    }
    const first = readBytes(pid);
    return {
      pid,
      ended,
      readBytes: () => Math.max(0, readBytes(pid) - first),
      stop: () => stop.abort(),
    };
  }
}

/** It writes a zero byte when it listens (criu(8), --status-fd); one that ends before that closes the pipe. */
function saysReady(fd: number): Promise<boolean> {
  const socket = new Socket({ fd, readable: true, writable: false });
  return new Promise((resolve) => {
    const done = (ready: boolean): void => {
      socket.destroy();
      resolve(ready);
    };
    socket.once('data', () => done(true));
    socket.once('end', () => done(false));
    socket.once('error', () => done(false));
  });
}

async function endOf(result: CommandResult, log: string): Promise<PageServerEnd> {
  if (result.exitCode === 0) return { complete: true, why: '' };
  const failure = await lastError(log).catch(() => undefined);
  const how =
    result.spawnError ??
    (result.signal === undefined ? `exit code ${String(result.exitCode)}` : `killed by ${result.signal}`);
  // What it wrote before it was killed is not why it ended.
  const told = failure === undefined || result.signal !== undefined ? how : describeFailure(failure);
  return { complete: false, why: told };
}

/** `rchar` of proc_pid_io(5); 0 when it has ended. */
function readBytes(pid: number): number {
  try {
    return Number(/^rchar: (\d+)$/m.exec(readFileSync(`/proc/${pid}/io`, 'latin1'))?.[1] ?? 0);
  } catch {
    return 0;
  }
}
