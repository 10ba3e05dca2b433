// Group `guard`: our shim as a guard and a worker, beside containerd's own for runc, on the same containerd, snapshotter (overlayfs) and
// OCI runtime. What a row's name means is in docs/benchmarks.md.
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { askGuard } from '../../src/shims/control.ts';
import { controlOf, listShims, type RunningShim } from '../../src/shims/list.ts';
import { median, type Options, report, run, timed } from './measure.ts';
import { connect, type ShimAddress } from './shim/calls.ts';
import { withGuard } from './shim/config.ts';
import { memoryOf } from './shim/process.ts';
import {
  ctr,
  importImage,
  ours,
  peerName,
  removeNamespace,
  runArguments,
  shimOf,
  shimPids,
  startIdle,
  theirs,
  type Side,
} from './shim/side.ts';

const state = process.env['STASIS_STATE'] ?? '';
const project = join(import.meta.dirname, '../..');
const GIB = 1 << 30;
const KILLS = 10;
/** A worker that has just begun to serve is let go on for so long. */
const BETWEEN_KILLS_MS = 20;
/** How often it is looked whether a container runs, in milliseconds. */
const POLL_MS = 2;
const SETTLE_MS = 10_000;
const CALLS = 2000;
const WARM_CALLS = 500;
let number = 0;

interface Both {
  readonly ours: number;
  readonly peer: number;
}

/** The guarded shim of a namespace. */
async function guarded(namespace: string): Promise<RunningShim> {
  const runDir = /^run_dir = "(.*)"$/m.exec(readFileSync(process.env['STASIS_CONFIG'] ?? '', 'utf8'))?.[1];
  const shims = await listShims(runDir ?? '');
  const shim = shims.find((one) => one.namespace === namespace && one.guard !== undefined);
  if (shim === undefined) throw new Error(`there is no guarded shim of ${namespace}`);
  return shim;
}

/** The worker that serves; waits for one that is another than `before`. */
async function workerOf(shim: RunningShim, before?: number): Promise<number> {
  for (;;) {
    const answer = await askGuard(controlOf(shim.socket), 'status');
    const pid = 'status' in answer ? answer.status.worker?.pid : undefined;
    if (pid !== undefined && pid !== before) return pid;
    await sleep(1);
  }
}

async function endGuarded(namespace: string): Promise<void> {
  const { pid } = await guarded(namespace);
  process.kill(pid, 'SIGTERM');
  while (existsSync(`/proc/${pid}`)) await sleep(10);
}

/** Milliseconds from the worker's end until the state of each container is answered again, each asked for over its own connection. */
async function stateAfterKill(namespace: string, runs: number): Promise<number> {
  await startIdle(namespace, ours, 0, 50, 8);
  const ids = Array.from({ length: 50 }, (_, n) => `${ours.name}${n}`);
  const clients = await Promise.all(ids.map((id) => connect(shimOf(namespace, id))));
  const shim = await guarded(namespace);
  const samples: number[] = [];
  for (let n = 0; n < runs; n++) {
    process.kill(await workerOf(shim), 'SIGKILL');
    const began = performance.now();
    await Promise.all(clients.map(({ tasks }, at) => tasks.state({ id: ids[at] ?? '', execId: '' })));
    samples.push(performance.now() - began);
    await sleep(1000); // one that ends sooner is not followed at once
  }
  for (const client of clients) client.close();
  return median(samples);
}

/** Microseconds that one State takes, the median of many in a row. */
async function stateTime(address: ShimAddress, id: string): Promise<number> {
  const shim = await connect(address);
  const samples: number[] = [];
  for (let n = 0; n < WARM_CALLS + CALLS; n++) {
    const began = performance.now();
    await shim.tasks.state({ id, execId: '' });
    if (n >= WARM_CALLS) samples.push((performance.now() - began) * 1000);
  }
  shim.close();
  return median(samples);
}

async function echoOverhead(namespace: string, runs: number): Promise<Both> {
  const samples: { ours: number[]; theirs: number[] } = { ours: [], theirs: [] };
  for (const side of [ours, theirs]) await startIdle(namespace, side, 0, 1, 1);
  for (let n = 0; n < runs; n++)
    for (const side of [ours, theirs])
      samples[side.name].push(await stateTime(shimOf(namespace, `${side.name}0`), `${side.name}0`));
  return { ours: median(samples.ours), peer: median(samples.theirs) };
}

async function runRm(namespace: string, runs: number): Promise<Both> {
  const samples: { ours: number[]; theirs: number[] } = { ours: [], theirs: [] };
  for (let n = 0; n <= runs; n++) {
    for (const side of n % 2 === 0 ? [ours, theirs] : [theirs, ours]) {
      const took = timed(() =>
        ctr(namespace, ...runArguments(side, '--rm'), `${side.name}-once${number++}`, 'true'),
      );
      if (n > 0) samples[side.name].push(took);
    }
  }
  return { ours: median(samples.ours), peer: median(samples.theirs) };
}

async function memory50(namespace: string): Promise<Both> {
  for (const side of [ours, theirs]) await startIdle(namespace, side, 0, 50, 8);
  await sleep(SETTLE_MS);
  const shim = await guarded(namespace);
  return {
    ours: memoryOf([shim.pid, await workerOf(shim)]),
    peer: memoryOf(shimPids(namespace, theirs)),
  };
}

function nextId(side: Side): string {
  return `${side.name}-out${number++}`;
}

/** A gigabyte from a container to ctr. @returns milliseconds; throws where a byte is lost or doubled */
async function gigabyte(namespace: string, side: Side, id = nextId(side)): Promise<number> {
  const dd = ['dd', 'if=/dev/zero', 'bs=64k', 'count=16384'];
  const command = ['ctr', '-n', namespace, ...runArguments(side, '--rm'), id, ...dd];
  const began = performance.now();
  const child = spawn('bash', ['-o', 'pipefail', '-c', '"$@" | wc -c', 'bash', ...command], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let [out, said] = ['', ''];
  child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString())); // dd's own report is among it
  const status = await new Promise((resolve) => child.once('close', resolve));
  if (Number(out) !== GIB || status !== 0)
    throw new Error(
      `stdout-1g-guarded: ${out.trim()} bytes came of ${GIB}, and ctr ended with ${String(status)}: ${said}`,
    );
  return performance.now() - began;
}

function isRunning(namespace: string, id: string): boolean {
  const lines = ctr(namespace, 'tasks', 'ls').split('\n');
  return lines.some((line) => line.startsWith(`${id} `) && line.includes('RUNNING'));
}

/** Ours with the worker killed ten times meanwhile, theirs undisturbed. */
async function stdout(namespace: string, runs: number): Promise<Both> {
  const samples: { ours: number[]; theirs: number[] } = { ours: [], theirs: [] };
  await startIdle(namespace, ours, 0, 1, 1); // so that there is a guard
  const shim = await guarded(namespace);
  for (let n = 0; n < runs; n++) {
    samples.theirs.push(await gigabyte(namespace, theirs));
    let flows = true;
    const id = nextId(ours);
    const moved = gigabyte(namespace, ours, id).finally(() => (flows = false));
    // Not before: a Create with which ten workers have ended is given up.
    while (flows && !isRunning(namespace, id)) await sleep(POLL_MS);
    let kills = 0;
    let last: number | undefined;
    while (kills < KILLS) {
      last = await workerOf(shim, last);
      await sleep(BETWEEN_KILLS_MS);
      if (!flows) break;
      process.kill(last, 'SIGKILL');
      kills++;
    }
    samples.ours.push(await moved);
    if (kills < KILLS) console.error(`stdout-1g-guarded: it was over after ${kills} of ${KILLS} kills`);
  }
  return { ours: median(samples.ours), peer: median(samples.theirs) };
}

export default async function main(options: Options): Promise<void> {
  const file = join(state, 'data/bench.tar');
  run(join(project, 'scripts/lib/image'), '--name', 'docker.io/bench/small:latest', file);
  const many = options.runs ?? 30;
  const few = Math.min(options.runs ?? 5, 7);
  const row = async (
    name: string,
    unit: string,
    runs: number,
    target: number,
    measure: (namespace: string, runs: number) => Promise<Both>,
    peer = peerName,
  ): Promise<void> => {
    if (!name.includes(options.only)) return;
    const namespace = `bench-${name}`;
    importImage(namespace);
    report({ name, unit, ...(await measure(namespace, runs)), runs, peerName: peer, target }, options);
    await removeNamespace(namespace);
    await endGuarded(namespace);
  };
  await withGuard(async () => {
    const limit = async (namespace: string, runs: number): Promise<Both> => ({
      ours: await stateAfterKill(namespace, runs),
      peer: 1000,
    });
    await row('state-after-kill', 'ms', few, 1, limit, 'the limit');
    await row('echo-overhead', 'µs', few, 1.5, echoOverhead);
    await row('run-rm-guarded', 'ms', many, 0.9, runRm);
    await row('memory-50-guarded', 'KiB', 1, 0.6, memory50);
    await row('stdout-1g-guarded', 'ms', few, 1.5, stdout, `${peerName}, undisturbed`);
  });
  rmSync(file);
}
