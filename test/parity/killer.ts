// STASIS_TEST_KILL=MILLISECONDS has our shim run with a guard, and its worker end again and again while scenarios are played;
// STASIS_TEST_KILL_BY says how, and STASIS_TEST_KILL_AT=step that it ends as a step of its work has just been written down.
import { readFileSync, watch, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { servingWorker } from '../system/support/guard.ts';
import { endResidentShim, signal } from '../system/support/process.ts';
import { stack } from '../system/support/stack.ts';
import { runDir } from '../system/shim/shims.ts';
import { MemoryShortage } from './memory-shortage.ts';

/** Milliseconds between two ends, on average; undefined without the killer. */
const every = Number(process.env['STASIS_TEST_KILL'] ?? NaN);
export const isKilling = Number.isFinite(every);
/** How a worker ends: by SIGKILL, by the guard as it stands still, or by the kernel as there is no memory. */
type Way = 'kill' | 'stop' | 'memory';
/** Of a hundred ends, where none is asked for by name. */
const STANDING = 10;
const SHORT = 10;
const isAtSteps = process.env['STASIS_TEST_KILL_AT'] === 'step';

export class Killer {
  readonly ends: Record<Way, number> = { kill: 0, stop: 0, memory: 0 };
  readonly #shortage = new MemoryShortage();
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
    this.#shortage.close();
    writeFileSync(stack.config, this.#config);
    await endResidentShim('SIGTERM');
  }

  async #run(): Promise<void> {
    while (this.#goesOn) {
      await sleep(2 * every * Math.random());
      const pid = await servingWorker();
      if (pid === undefined || (isAtSteps && !(await nextStep()))) continue;
      const way = nextWay();
      if (way === 'memory') {
        if (!(await this.#shortage.befall(pid))) continue;
      } else signal(pid, way === 'stop' ? 'SIGSTOP' : 'SIGKILL');
      this.ends[way]++;
    }
  }
}

/**
 * Settles as the next event comes into the worker's journal, which is before what it tells of is written down and before anybody is
 * told, or as it leaves it, which is once containerd has acknowledged it.
 * @returns whether there was one in the time between two ends
 */
function nextStep(): Promise<boolean> {
  return new Promise((resolve) => {
    const watcher = watch(join(runDir, 'events'));
    const settle = (stepped: boolean): void => {
      clearTimeout(timer);
      watcher.close();
      resolve(stepped);
    };
    const timer = setTimeout(settle, 2 * every, false);
    watcher.once('change', () => settle(true));
  });
}

function nextWay(): Way {
  const asked = process.env['STASIS_TEST_KILL_BY'];
  if (asked === 'kill' || asked === 'stop' || asked === 'memory') return asked;
  if (asked !== undefined)
    throw new Error(`STASIS_TEST_KILL_BY is kill, stop or memory, not ${JSON.stringify(asked)}`);
  const chance = Math.random() * 100;
  if (chance < STANDING) return 'stop';
  return chance < STANDING + SHORT ? 'memory' : 'kill';
}
