// A clone of a large container, from the call to the number that it counts next: beside that of a small one, and beside runc
// when it brings the same memory back, all of it before the first instruction.
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { numberAt, untilCounted } from '../clone-bare.ts';
import { counter, remove, start } from '../counter.ts';
import { median, report, run, type Options } from '../measure.ts';
import { importLarge, importSmall } from './images.ts';

const state = process.env['STASIS_STATE'] ?? '';
const runc = process.env['STASIS_RUNC'] ?? 'runc';
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
      if (n > 0) times.push(time);
    }
  } finally {
    remove(source);
    run('stasis', 'rm', source, 'c');
  }
  return times;
}

/** The image is on the tmpfs, the best place for it. */
async function runcRestores(runs: number): Promise<number[]> {
  const times: number[] = [];
  const [bundle, images] = [join(state, 'data/eager'), mkdtempSync(`${state}/run/eager-`)];
  const [rootfs, work] = [join(bundle, 'rootfs'), join(bundle, 'work')];
  const quiet = (...args: string[]): void => {
    const { status } = spawnSync(runc, ['--root', join(bundle, 'state'), ...args], { stdio: 'ignore' });
    if (status !== 0) throw new Error(`runc ${args.join(' ')} ended with ${status}: see ${work}`);
  };
  try {
    for (const folder of [rootfs, work]) mkdirSync(folder, { recursive: true });
    fill(rootfs);
    run('sh', '-c', 'cd "$1" && exec "$2" spec', '-', bundle, runc);
    writeSpec(join(bundle, 'config.json'), counter(GIGABYTE, 0));
    quiet('run', '-d', '--bundle', bundle, 'eager');
    const file = join(rootfs, 'count');
    await untilCounted(() => file, '', ['true']);
    quiet('checkpoint', '--image-path', images, '--work-path', work, 'eager');
    const at = readFileSync(file, 'utf8');
    for (let n = 0; n <= runs; n++) {
      writeFileSync(file, at);
      const restore = [
        'restore',
        '--detach',
        '--bundle',
        bundle,
        '--image-path',
        images,
        '--work-path',
        work,
      ];
      const command: [string, ...string[]] = [runc, '--root', join(bundle, 'state'), ...restore, 'eager'];
      const time = await untilCounted(() => file, at, command);
      quiet('delete', '--force', 'eager');
      if (n > 0) times.push(time);
    }
    return times;
  } finally {
    spawnSync(runc, ['--root', join(bundle, 'state'), 'delete', '--force', 'eager'], { stdio: 'ignore' });
    for (const folder of [bundle, images]) rmSync(folder, { recursive: true, force: true });
  }
}

/** What the small image holds. */
function fill(rootfs: string): void {
  const mounted = mkdtempSync(join(state, 'data/tmp/mounted-'));
  run('ctr', 'images', 'mount', '--snapshotter', 'overlayfs', importSmall(), mounted);
  run('cp', '-a', `${mounted}/.`, rootfs);
  run('ctr', 'images', 'unmount', '--snapshotter', 'overlayfs', '--rm', mounted);
  rmSync(mounted, { recursive: true });
}

function writeSpec(path: string, args: string[]): void {
  const spec = JSON.parse(readFileSync(path, 'utf8')) as {
    process: { terminal: boolean; args: string[] };
    root: { readonly: boolean };
    linux: { cgroupsPath?: string };
  };
  spec.process.terminal = false;
  spec.process.args = args;
  spec.root.readonly = false;
  spec.linux.cgroupsPath = '/stasis-bench/eager';
  writeFileSync(path, JSON.stringify(spec));
}
