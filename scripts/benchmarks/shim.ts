// Group `shim`: our shim beside containerd's own for runc, on the same containerd, snapshotter (overlayfs) and OCI
// runtime. What a row's name means is in docs/benchmarks.md.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { median, type Options, report, run, timed } from './measure.ts';
import { manyContainers } from './shim/many.ts';
import { echo } from './shim/echo.ts';
import { withRuntime } from './shim/config.ts';
import { peakOf } from './shim/process.ts';
import {
  ctr,
  endIdleShim,
  importImage,
  ours,
  peerName,
  removeAll,
  removeNamespace,
  runArguments,
  shimPids,
  startIdle,
  theirs,
  type Side,
} from './shim/side.ts';

const state = process.env['STASIS_STATE'] ?? '';
const project = join(import.meta.dirname, '../..');
/** The most by which a gigabyte of output may make our shim grow. */
const STDOUT_GROWTH_KIB = 64 * 1024;
let number = 0;

/** Measures both sides `runs` times in turn, and once before for warmth. */
async function inTurn(
  runs: number,
  measure: (side: Side) => number | Promise<number>,
): Promise<{ ours: number; peer: number }> {
  const samples = { ours: [] as number[], theirs: [] as number[] };
  for (let n = 0; n <= runs; n++) {
    for (const side of n % 2 === 0 ? [ours, theirs] : [theirs, ours]) {
      const sample = await measure(side);
      if (n > 0) samples[side.name].push(sample);
    }
  }
  return { ours: median(samples.ours), peer: median(samples.theirs) };
}

function runOnce(namespace: string, side: Side, ...command: string[]): void {
  ctr(namespace, ...runArguments(side, '--rm'), `${side.name}-once${number++}`, ...command);
}

/** One container from its creation to its removal. */
function runRm(namespace: string, runs: number): Promise<{ ours: number; peer: number }> {
  return inTurn(runs, (side) => timed(() => runOnce(namespace, side, 'true')));
}

/** The same, with our shim ended before. */
function firstRun(namespace: string, runs: number): Promise<{ ours: number; peer: number }> {
  return inTurn(runs, (side) => {
    if (side === ours) endIdleShim(namespace);
    return timed(() => runOnce(namespace, side, 'true'));
  });
}

async function exec(namespace: string, runs: number): Promise<{ ours: number; peer: number }> {
  for (const side of [ours, theirs]) await startIdle(namespace, side, 0, 1, 1);
  const result = await inTurn(runs, (side) =>
    timed(() => ctr(namespace, 'tasks', 'exec', '--exec-id', `e${number++}`, `${side.name}0`, 'true')),
  );
  await removeAll(namespace);
  return result;
}

function start50(namespace: string, runs: number): Promise<{ ours: number; peer: number }> {
  return inTurn(runs, async (side) => {
    const began = performance.now();
    await startIdle(namespace, side, 0, 50, 8);
    const took = performance.now() - began;
    await removeAll(namespace, side);
    return took;
  });
}

/** A gigabyte from the container through the shim and a FIFO to ctr, which drops it. */
async function stdout(namespace: string, runs: number): Promise<{ ours: number; peer: number }> {
  const dd = ['dd', 'if=/dev/zero', 'bs=64k', 'count=16384'];
  runOnce(namespace, ours, 'true');
  const [shim = 0] = shimPids(namespace, ours);
  const before = peakOf(shim);
  const result = await inTurn(runs, (side) => {
    const id = `${side.name}-out${number++}`;
    const command = ['ctr', '-n', namespace, ...runArguments(side, '--rm'), id, ...dd];
    return timed(() => run('sh', '-c', '"$@" >/dev/null', 'sh', ...command));
  });
  const growth = peakOf(shim) - before;
  if (growth > STDOUT_GROWTH_KIB) throw new Error(`stdout-1g: our shim grew by ${growth} KiB`);
  return result;
}

export default async function main(options: Options): Promise<void> {
  const wanted = (name: string): boolean => name.includes(options.only);
  const tell = (
    name: string,
    unit: string,
    runs: number,
    values: { ours: number; peer: number },
    target?: number,
    peer = peerName,
  ): void => {
    const limit = target === undefined ? {} : { target };
    report({ name, unit, ...values, runs, peerName: peer, ...limit }, options);
  };
  const file = join(state, 'data/bench.tar');
  run(join(project, 'scripts/lib/image'), '--name', 'docker.io/bench/small:latest', file);

  const row = async (
    name: string,
    runs: number,
    measure: (namespace: string, runs: number) => Promise<{ ours: number; peer: number }>,
    target: number,
    peer?: string,
  ): Promise<void> => {
    if (!wanted(name)) return;
    const namespace = `bench-${name}`;
    importImage(namespace);
    tell(name, 'ms', runs, await measure(namespace, runs), target, peer);
    await removeNamespace(namespace);
    endIdleShim(namespace);
  };
  const many = options.runs ?? 30;
  const few = Math.min(options.runs ?? 3, 7);
  await row('run-rm', many, runRm, 0.85);
  await withRuntime('crun', () =>
    row('run-rm-defaults', many, runRm, 0.5, `${peerName} with runc, ours with crun`),
  );
  await row('first-run', Math.min(many, 15), firstRun, 2.5);
  await row('exec', many, exec, 1);
  await row('start-50', few, start50, 0.8);
  await row('stdout-1g', Math.min(many, 7), stdout, 1.25);
  await manyContainers(wanted, tell, few);
  await echo(wanted, tell, few);
  rmSync(file);
}
