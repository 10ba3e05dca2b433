// The rows about many containers: memory, CPU, and a restart of containerd.
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { median, run } from '../measure.ts';
import { askForStats } from './calls.ts';
import { cpuOf, memoryOf } from './process.ts';
import {
  countRunning,
  endIdleShim,
  importImage,
  ours,
  removeAll,
  removeNamespace,
  shimOf,
  shimPids,
  startIdle,
  theirs,
  type Side,
} from './side.ts';

export type Tell = (
  name: string,
  unit: string,
  runs: number,
  values: { ours: number; peer: number },
  target?: number,
  peer?: string,
) => void;

const NAMESPACE = 'bench-many';
const sides = [ours, theirs];
const project = join(import.meta.dirname, '../../..');
/** What follows a start, garbage collection on both sides included, is over by then. */
const SETTLE_MS = 10_000;
const WINDOW_S = 60;
const RELOAD_LIMIT_MS = 60_000;
/** Restarts at least: most of each is containerd's own start, which takes now a fifth more, now a fifth less. */
const RELOADS = 9;

interface Both {
  ours: number;
  peer: number;
}

function ofBoth(measure: (pids: readonly number[]) => number): Both {
  return { ours: measure(shimPids(NAMESPACE, ours)), peer: measure(shimPids(NAMESPACE, theirs)) };
}

/** What both sides' shims use of the CPU, in milliseconds a second, while something goes on. */
async function cpuDuring(work: () => Promise<unknown>): Promise<Both> {
  const pids = { ours: shimPids(NAMESPACE, ours), peer: shimPids(NAMESPACE, theirs) };
  const before = { ours: cpuOf(pids.ours), peer: cpuOf(pids.peer) };
  await work();
  return {
    ours: (cpuOf(pids.ours) - before.ours) / WINDOW_S,
    peer: (cpuOf(pids.peer) - before.peer) / WINDOW_S,
  };
}

/** Brings both sides to a number of containers, and says what their shims' memory is then, in KiB. */
async function grow(from: number, to: number): Promise<Both> {
  for (const side of sides) await startIdle(NAMESPACE, side, from, to - from, 8);
  await sleep(SETTLE_MS);
  return ofBoth(memoryOf);
}

/** From the start of containerd until all of a side's containers are listed as running, in milliseconds. */
function reload(side: Side, count: number): number {
  run(join(project, 'scripts/dev'), 'stop', 'containerd');
  const began = performance.now();
  run(join(project, 'scripts/dev'), 'start', 'containerd');
  while (countRunning(NAMESPACE, side) < count) {
    if (performance.now() - began > RELOAD_LIMIT_MS) throw new Error(`not all of ${side.name} came back`);
  }
  return performance.now() - began;
}

export async function manyContainers(
  wanted: (name: string) => boolean,
  tell: Tell,
  runs: number,
): Promise<void> {
  const names = ['memory-50', 'memory-slope', 'idle-cpu-50', 'stats-100', 'reload-100'] as const;
  if (!names.some(wanted)) return;
  importImage(NAMESPACE);

  const at10 = await grow(0, 10);
  const at50 = await grow(10, 50);
  if (wanted('memory-50')) tell('memory-50', 'KiB', 1, at50, 0.4);
  if (wanted('idle-cpu-50')) tell('idle-cpu-50', 'ms/s', 1, await cpuDuring(() => sleep(WINDOW_S * 1000)), 1);

  if (['memory-slope', 'stats-100', 'reload-100'].some(wanted)) {
    const at100 = await grow(50, 100);
    const slope = { ours: (at100.ours - at10.ours) / 90, peer: (at100.peer - at10.peer) / 90 };
    if (wanted('memory-slope')) tell('memory-slope', 'KiB', 1, slope, 0.1);
  }
  if (wanted('stats-100')) {
    const tasks = sides.flatMap((side) =>
      Array.from({ length: 100 }, (_, n) => ({
        ...shimOf(NAMESPACE, `${side.name}${n}`),
        id: `${side.name}${n}`,
      })),
    );
    tell('stats-100', 'ms/s', 1, await cpuDuring(() => askForStats(tasks, WINDOW_S)), 1);
  }
  if (wanted('reload-100')) {
    const reloads = Math.max(runs, RELOADS);
    const samples: { ours: number[]; theirs: number[] } = { ours: [], theirs: [] };
    await removeAll(NAMESPACE, theirs);
    for (let n = 0; n < reloads; n++) samples.ours.push(reload(ours, 100));
    await removeAll(NAMESPACE, ours);
    await startIdle(NAMESPACE, theirs, 0, 100, 8);
    for (let n = 0; n < reloads; n++) samples.theirs.push(reload(theirs, 100));
    const values = { ours: median(samples.ours), peer: median(samples.theirs) };
    tell('reload-100', 'ms', reloads, values, 1);
  }
  await removeNamespace(NAMESPACE);
  endIdleShim(NAMESPACE);
}
