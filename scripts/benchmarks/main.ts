// Group `main`: checkpoint and restore beside `ctr c checkpoint` and `ctr c restore` with containerd's own shim
// on overlayfs.
import { spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { cloneBare } from './clone-bare.ts';
import { pidOf, remove, start } from './counter.ts';
import { median, type Options, report, run, timed } from './measure.ts';

const state = process.env['STASIS_STATE'] ?? '';
const project = join(import.meta.dirname, '../..');
const peerName = 'ctr with containerd-shim-runc-v2 on overlayfs';

/**
 * The longest time, in milliseconds, for which the container's number stood still while a program ran. Where the
 * program ends the container, that counts as the end of the standstill.
 */
async function standstill(name: string, file: string, args: string[]): Promise<number> {
  const pid = pidOf(name);
  const watcher = new Worker(new URL('./watch.ts', import.meta.url), {
    workerData: { path: `/proc/${pid}/root/count` },
  });
  await new Promise((resolve) => watcher.once('message', resolve));
  const status = await new Promise((resolve) =>
    spawn(file, args, { stdio: 'ignore' }).once('close', resolve),
  );
  if (status !== 0) throw new Error(`${file} ${args.join(' ')} ended with ${String(status)}`);
  const longest = new Promise<number>((resolve) => watcher.once('message', resolve));
  watcher.postMessage('stop');
  const milliseconds = await longest;
  await watcher.terminate();
  return milliseconds;
}

interface Series {
  checkpoint: number[];
  restore: number[];
}

/**
 * Wall time in milliseconds, on a disk that has nothing left to write. The other side's container has written its
 * gigabyte just before, to the file system that the pool's file is in too; while that goes to the disk, each fsync(2)
 * of the pool waits for it (ext4 writes a file's data before the journal that allocates it).
 */
function timedQuiet(work: () => void): number {
  run('sync');
  return timed(work);
}

/**
 * Checkpoints and restores of one container, in turn on both sides.
 * @param written megabytes of its root file system that the container has written itself
 */
function series(
  image: string,
  megabytes: number,
  runs: number,
  written = 0,
): { ours: Series; theirs: Series } {
  const result = {
    ours: { checkpoint: [], restore: [] } as Series,
    theirs: { checkpoint: [], restore: [] } as Series,
  };
  start('b-ours', 'ours', image, megabytes, written);
  for (let n = 0; n <= runs; n++) {
    // `ctr containers checkpoint` ends the task.
    start('b-theirs', 'theirs', image, megabytes, written);
    const reference = `docker.io/bench/c${n}:latest`;
    const oursCheckpoint = timedQuiet(() =>
      run('stasis', 'checkpoint', 'b-ours', '--name', `c${n}`, '--require-memory'),
    );
    const theirsCheckpoint = timedQuiet(() =>
      run('ctr', 'containers', 'checkpoint', '--rw', '--task', 'b-theirs', reference),
    );
    const oursRestore = timedQuiet(() =>
      run('stasis', 'restore', 'b-ours', '--snapshot', `c${n}`, '--as', `b-ours-${n}`, '--require-memory'),
    );
    remove(`b-ours-${n}`); // what runs beside a restore is the same for both
    const theirsRestore = timedQuiet(() =>
      run('ctr', 'containers', 'restore', '--rw', '--live', `b-theirs-${n}`, reference),
    );
    remove(`b-theirs-${n}`);
    remove('b-theirs');
    run('stasis', 'rm', 'b-ours', `c${n}`);
    run('ctr', 'images', 'rm', reference);
    if (n === 0) continue; // warm-up
    result.ours.checkpoint.push(oursCheckpoint);
    result.theirs.checkpoint.push(theirsCheckpoint);
    result.ours.restore.push(oursRestore);
    result.theirs.restore.push(theirsRestore);
  }
  remove('b-ours');
  return result;
}

/**
 * The same of two containers of ours in turn, one of which has written a gigabyte: what the root file system's size
 * costs, and nothing that the other tool's gigabytes leave behind (memory that the machine has to fetch anew, above all).
 */
function pair(image: string, runs: number): { small: Series; large: Series } {
  const sides = ['small', 'large'] as const;
  const result = {
    small: { checkpoint: [], restore: [] } as Series,
    large: { checkpoint: [], restore: [] } as Series,
  };
  for (const side of sides) start(`g-${side}`, 'ours', image, 8, side === 'large' ? 1024 : 0);
  for (let n = 0; n <= runs; n++) {
    for (const side of sides) {
      const [name, copy] = [`g-${side}`, `g-${side}-${n}`];
      const checkpoint = timedQuiet(() =>
        run('stasis', 'checkpoint', name, '--name', `g${n}`, '--require-memory'),
      );
      const restore = timedQuiet(() =>
        run('stasis', 'restore', name, '--snapshot', `g${n}`, '--as', copy, '--require-memory'),
      );
      remove(copy);
      run('stasis', 'rm', name, `g${n}`);
      if (n === 0) continue; // warm-up
      result[side].checkpoint.push(checkpoint);
      result[side].restore.push(restore);
    }
  }
  for (const side of sides) remove(`g-${side}`);
  return result;
}

function importImage(name: string, ...flags: string[]): void {
  const file = join(state, 'data/bench.tar');
  run(join(project, 'scripts/lib/image'), '--name', name, ...flags, file);
  for (const snapshotter of ['stasis', 'overlayfs'])
    run('ctr', 'images', 'import', '--snapshotter', snapshotter, file);
  rmSync(file);
}

export default async function main(options: Options): Promise<void> {
  const { runs = 7 } = options;
  const wanted = (...names: string[]): boolean => names.some((name) => name.includes(options.only));
  const small = 'docker.io/bench/small:latest';
  const large = 'docker.io/bench/large:latest';
  importImage(small);
  let counted = runs;
  const tell = (name: string, a: number, b: number, target?: number, peer = peerName): void => {
    if (!name.includes(options.only)) return;
    const measure = { name, unit: 'ms', ours: a, peer: b, runs: counted, peerName: peer };
    report(target === undefined ? measure : { ...measure, target }, options);
  };

  // Quick, and nearest to their targets: enough of them that a median stands still from one time to the next.
  counted = options.runs ?? 15;
  if (wanted('checkpoint-2m', 'restore-2m')) {
    const { ours, theirs } = series(small, 8, counted);
    tell('checkpoint-2m', median(ours.checkpoint), median(theirs.checkpoint), 0.8);
    tell('restore-2m', median(ours.restore), median(theirs.restore), 0.8);
  }
  if (wanted('checkpoint-rootfs-growth', 'restore-rootfs-growth')) {
    const of = pair(small, counted);
    const same = 'the same with 2 MB';
    tell('checkpoint-rootfs-growth', median(of.large.checkpoint), median(of.small.checkpoint), 1.2, same);
    tell('restore-rootfs-growth', median(of.large.restore), median(of.small.restore), 1.2, same);
  }
  counted = runs;
  if (wanted('checkpoint-1g', 'restore-1g')) {
    // What a container has written is what both have to keep; ctr packs it, so a few runs will do.
    counted = Math.min(runs, 3);
    const { ours, theirs } = series(small, 8, counted, 1024);
    tell('checkpoint-1g', median(ours.checkpoint), median(theirs.checkpoint), 0.5);
    tell('restore-1g', median(ours.restore), median(theirs.restore), 0.5);
    counted = runs;
  }
  if (wanted('checkpoint-1g-image', 'restore-1g-image')) {
    importImage(large, '--size', '1G', '--files', '64');
    const { ours, theirs } = series(large, 8, runs);
    tell('checkpoint-1g-image', median(ours.checkpoint), median(theirs.checkpoint));
    tell('restore-1g-image', median(ours.restore), median(theirs.restore));
  }

  for (const megabytes of [8, 512]) {
    const name = `frozen-ctr-${megabytes}m`;
    if (!wanted(name)) continue;
    start('f-ours', 'ours', small, megabytes);
    const [a, b]: [number[], number[]] = [[], []];
    for (let n = 0; n <= runs; n++) {
      start('f-theirs', 'theirs', small, megabytes);
      const reference = `docker.io/bench/f${n}:latest`;
      const one = await standstill('f-ours', 'stasis', [
        'checkpoint',
        'f-ours',
        '--name',
        `f${n}`,
        '--require-memory',
      ]);
      const two = await standstill('f-theirs', 'ctr', [
        'containers',
        'checkpoint',
        '--rw',
        '--task',
        'f-theirs',
        reference,
      ]);
      run('stasis', 'rm', 'f-ours', `f${n}`);
      run('ctr', 'images', 'rm', reference);
      remove('f-theirs');
      if (n > 0) {
        a.push(one);
        b.push(two);
      }
    }
    remove('f-ours');
    tell(name, median(a), median(b), 0.5);
  }

  if (wanted('clone-bare')) {
    const { ours, bare } = await cloneBare(small, runs);
    tell('clone-bare', median(ours), median(bare), 3, 'zfs clone and criu restore by hand');
  }
}
