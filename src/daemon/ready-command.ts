// Keeps the ready command line (src/cli/ready/) while stasisd serves.
import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Config } from '../config/config.ts';
import { messageOf } from '../errors.ts';
import type { Logger } from '../log.ts';
import { isAlive } from '../sys/process.ts';

/** Milliseconds until the next one is started, where the one before has served; doubled for each that ended early. */
const FIRST_DELAY = 100;
const MAX_DELAY = 300_000;
/** Milliseconds after which one has served. */
const LONG_ENOUGH = 10_000;
/** Milliseconds in which a command that runs may end, when stasisd stops. */
const PATIENCE = 2000;

/**
 * Starts it, where the configuration wants one and this build has its program: the script `stasis`, which alone can call it, comes
 * with that.
 */
export function readyCommand(config: Config, log: Logger): ReadyCommand | undefined {
  const program = join(import.meta.dirname, 'ready.cjs');
  const folder = join(config.daemon.run_dir, 'ready');
  if (config.daemon.ready_command === 'off' || !existsSync(program)) {
    // Of one that was killed.
    rmSync(folder, { recursive: true, force: true });
    return undefined;
  }
  return new ReadyCommand(program, folder, log);
}

/** A process that is started again whenever it ends, until `stop`. What is in its way costs time for commands, and nothing else. */
export class ReadyCommand {
  readonly #program: string;
  readonly #folder: string;
  readonly #log: Logger;
  #child: ChildProcess | undefined;
  #timer: NodeJS.Timeout | undefined;
  #delay = FIRST_DELAY;
  #stopped = false;

  /** @param program its bundle @param folder made for it; only root can enter it */
  constructor(program: string, folder: string, log: Logger) {
    this.#program = program;
    this.#folder = folder;
    this.#log = log;
    this.#start();
  }

  /** Lets a command that runs end, and takes the folder away. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    const child = this.#child;
    if (child !== undefined) {
      const ended = new Promise((resolve) => child.once('close', resolve));
      const timer = setTimeout(() => child.kill('SIGKILL'), PATIENCE);
      child.stdin?.end();
      await ended;
      clearTimeout(timer);
    }
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #start(): void {
    const started = Date.now();
    try {
      mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
      chmodSync(this.#folder, 0o700);
      this.#clear();
      // What it does is done in the environment of its callers.
      const child = spawn(process.execPath, [this.#program, this.#folder], {
        cwd: '/',
        stdio: ['pipe', 'ignore', 'inherit'],
      });
      this.#child = child;
      child.stdin.on('error', () => undefined); // it ended first
      child.once('error', (error) => this.#log.warn('no command line is ready', { error: messageOf(error) }));
      child.once('close', (code, signal) => {
        this.#child = undefined;
        if (code !== 0 && !this.#stopped)
          this.#log.warn('the ready command line ended', { end: signal ?? `exit code ${code}` });
        this.#again(Date.now() - started);
      });
    } catch (error) {
      this.#log.warn('no command line is ready', { error: messageOf(error) });
      this.#again(0);
    }
  }

  #again(lived: number): void {
    if (this.#stopped) return;
    if (lived >= LONG_ENOUGH) this.#delay = FIRST_DELAY;
    this.#timer = setTimeout(() => this.#start(), this.#delay);
    this.#timer.unref();
    this.#delay = Math.min(this.#delay * 2, MAX_DELAY);
  }

  /** Removes what processes left that were killed; one of a stasisd that was killed may still run its last command. */
  #clear(): void {
    for (const name of readdirSync(this.#folder)) {
      const [, pid = '', started = ''] = name.replace(/^\.(?:new|old)-/, '').split('.');
      if (!isAlive(Number(pid), started)) rmSync(join(this.#folder, name), { recursive: true, force: true });
    }
  }
}
