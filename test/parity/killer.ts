// STASIS_TEST_KILL=MILLISECONDS has our shim run with a guard, and its worker end again and again while scenarios are played.
import { readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { askGuard } from '../../src/shims/control.ts';
import { controlOf, listShims } from '../../src/shims/list.ts';
import { runDir } from '../system/shim/shims.ts';
import { endResidentShim, signal } from '../system/support/process.ts';
import { stack } from '../system/support/stack.ts';

/** Milliseconds between two ends, on average; undefined without the killer. */
const every = Number(process.env['STASIS_TEST_KILL'] ?? NaN);
export const isKilling = Number.isFinite(every);
/** So many of a hundred stand still instead, until the guard takes them for dead. */
const STANDING = 10;

export class Killer {
  ends = 0;
  readonly #config: string;
  readonly #loop: Promise<void>;
  #goesOn = true;

  private constructor(config: string) {
    this.#config = config;
    this.#loop = this.#run();
  }

  /** Has the shims that start from now on have a guard; those there are have to be idle. */
  static async start(): Promise<Killer | undefined> {
    if (!isKilling) return undefined;
    const config = readFileSync(stack.config, 'utf8');
    writeFileSync(stack.config, `${config}\n[shim]\nguard = "on"\n`);
    await endResidentShim('SIGTERM');
    return new Killer(config);
  }

  async stop(): Promise<void> {
    this.#goesOn = false;
    await this.#loop;
    writeFileSync(stack.config, this.#config);
    await endResidentShim('SIGTERM');
  }

  async #run(): Promise<void> {
    while (this.#goesOn) {
      await sleep(2 * every * Math.random());
      const pid = await workerPid();
      if (pid === undefined) continue;
      signal(pid, Math.random() * 100 < STANDING ? 'SIGSTOP' : 'SIGKILL');
      this.ends++;
    }
  }
}

async function workerPid(): Promise<number | undefined> {
  const shims = await listShims(runDir);
  const shim = shims.find(({ namespace, guard }) => namespace === 'default' && guard !== undefined);
  if (shim === undefined) return undefined;
  const answer = await askGuard(controlOf(shim.socket), 'status').catch(() => undefined);
  return answer !== undefined && 'status' in answer ? answer.status.worker?.pid : undefined;
}
