// A clone of a large container, from the call to the number that it counts next: beside that of a small one, and beside runc
// when it brings the same memory back, all of it before the first instruction.
import { readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { numberAt, untilCounted } from '../clone-bare.ts';
import { remove, start } from '../counter.ts';
import { median, report, run, type Options } from '../measure.ts';
import { withBare } from './bare.ts';
import { importLarge, importSmall } from './images.ts';

const state = process.env['STASIS_STATE'] ?? '';
const GIGABYTE = 1024;

export async function cloneRows(options: Options, wanted: (name: string) => boolean): Promise<void> {
  const { runs = 9 } = options;
  const [growth, eager] = [wanted('clone-growth'), wanted('clone-eager')];
  if (!growth && !eager) return;
  const tell = (name: string, ours: number[], peer: number[], peerName: string, target: number): void =>
    report({ name, unit: 'ms', ours: median(ours), peer: median(peer), runs, peerName, target }, options);
  const large = await clones('e-large', importLarge(), GIGABYTE, runs);
  if (growth) {
    const small = await clones('e-small', importSmall(), 8, runs);
    tell('clone-growth', large, small, 'the same with 8 MB, on 2 MB', 1.5);
  }
  if (eager) tell('clone-eager', large, await runcRestores(runs), 'runc restore by hand, eager', 0.2);
}

/** Milliseconds of each clone; the first is a warm-up and not among them. */
async function clones(source: string, image: string, megabytes: number, runs: number): Promise<number[]> {
  const times: number[] = [];
  start(source, 'ours', image, megabytes);
  try {
    const text = run('stasis', 'checkpoint', source, '--name', 'c', '--require-memory', '--json');
    const { checkpoint } = JSON.parse(text) as { checkpoint: { snapshot: string } };
    const at = numberAt(checkpoint.snapshot);
    for (let n = 0; n <= runs; n++) {
      const name = `${source}-${n}`;
      const file = `${state}/run/mnt/containers+default+${name}/rootfs/count`;
      const clone = ['stasis', 'clone', source, '--from', 'c', '--name', name] as const;
      const time = await untilCounted(() => file, at, [...clone]);
      remove(name);
      await settled();
      if (n > 0) times.push(time);
    }
  } finally {
    remove(source);
    run('stasis', 'rm', source, 'c');
  }
  return times;
}

/** Waits for what removing a clone leaves to be done: the one measured next is not to pay for it. */
async function settled(): Promise<void> {
  const reading = `${process.env['STASIS_ROOT'] ?? ''}/reading`;
  while (run('zfs', 'list', '-H', '-r', '-o', 'name', reading).trim() !== reading) await sleep(50);
  run('sync');
}

function runcRestores(runs: number): Promise<number[]> {
  return withBare('eager', GIGABYTE, async (bare) => {
    const times: number[] = [];
    const places = ['--image-path', bare.images, '--work-path', bare.work];
    bare.runc('checkpoint', ...places, 'eager');
    const at = readFileSync(bare.count, 'utf8');
    for (let n = 0; n <= runs; n++) {
      writeFileSync(bare.count, at);
      const restore = bare.command('restore', '--detach', '--bundle', bare.bundle, ...places, 'eager');
      const time = await untilCounted(() => bare.count, at, restore);
      bare.runc('delete', '--force', 'eager');
      await settled();
      if (n > 0) times.push(time);
    }
    return times;
  });
}
