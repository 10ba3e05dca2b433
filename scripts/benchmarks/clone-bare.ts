// A clone, from the call to the number that it counts next, beside the same made by hand: `zfs clone` and `criu restore` of
// the same image, told what `runc restore` would tell it.
import { spawn } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { makeTree, type TreeNode } from '../../src/criu/nodes.ts';
import { remove, start } from './counter.ts';
import { run } from './measure.ts';

const state = process.env['STASIS_STATE'] ?? '';
const root = process.env['STASIS_ROOT'] ?? '';
const source = 'k-source';

interface Taken {
  readonly snapshot: string;
  readonly images: string;
  readonly place: string;
  readonly at: string;
}

export async function cloneBare(image: string, runs: number): Promise<{ ours: number[]; bare: number[] }> {
  const place = mkdtempSync(`${state}/run/bare-`);
  const result = { ours: [] as number[], bare: [] as number[] };
  start(source, 'ours', image, 8);
  try {
    const taken = JSON.parse(
      run('stasis', 'checkpoint', source, '--name', 'c', '--require-memory', '--json'),
    ) as { checkpoint: { snapshot: string } };
    const { snapshot } = taken.checkpoint;
    const images = copyImage(snapshot.replace('@', '/memory@'), place);
    const at = numberAt(snapshot);
    for (let n = 0; n <= runs; n++) {
      const sample = {
        ours: await ourClone(n, at),
        bare: await bareClone({ snapshot, images, place, at }, n),
      };
      if (n === 0) continue; // warm-up
      result.ours.push(sample.ours);
      result.bare.push(sample.bare);
    }
  } finally {
    run('sh', '-c', `stasis rm ${source} c; true`);
    remove(source);
    rmSync(place, { recursive: true, force: true });
  }
  return result;
}

/** Milliseconds from the start of a program to the first number in `file` that is not there at first. */
export async function untilCounted(
  file: () => string,
  before: string,
  args: [string, ...string[]],
): Promise<number> {
  const [program, ...rest] = args;
  const begin = process.hrtime.bigint();
  const child = spawn(program, rest, { stdio: ['ignore', 'ignore', 'inherit'] });
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  const deadline = Date.now() + 30_000;
  for (;;) {
    const text = existsSync(file()) ? readFileSync(file(), 'utf8') : '';
    if (text !== '' && text !== before) break;
    if (Date.now() > deadline) throw new Error(`${args.join(' ')}: no number is counted`);
    await sleep(1);
  }
  const milliseconds = Number(process.hrtime.bigint() - begin) / 1e6;
  if ((await ended) !== 0) throw new Error(`${args.join(' ')} failed`);
  return milliseconds;
}

async function ourClone(n: number, at: string): Promise<number> {
  const name = `k-clone-${n}`;
  const file = `${state}/run/mnt/containers+default+${name}/rootfs/count`;
  try {
    return await untilCounted(() => file, at, ['stasis', 'clone', source, '--from', 'c', '--name', name]);
  } finally {
    remove(name);
  }
}

async function bareClone({ snapshot, images, place, at }: Taken, n: number): Promise<number> {
  const clone = `${root}/bare-${n}`;
  const mountpoint = join(place, `disk-${n}`);
  const newRoot = join(place, 'root');
  const tmpfs = tmpfsOf(images, place);
  mkdirSync(newRoot, { recursive: true });
  const criu = [
    ...['criu', 'restore', '--images-dir', images, '--work-dir', place, '--log-file', 'bare.log'],
    ...[
      '--root',
      newRoot,
      '--restore-detached',
      '--pidfile',
      join(place, `pid-${n}`),
      '--manage-cgroups=soft',
    ],
    ...['--ext-unix-sk', '--file-locks', '--tcp-established', '--empty-ns', 'net'],
    ...['--external', 'mnt[/dev/null]:/dev/null'],
    ...tmpfs.flatMap(({ key, folder }) => ['--external', `mnt[${key}]:${folder}`]),
  ];
  const script =
    'zfs clone -o mountpoint="$1" "$2" "$3" && mount --bind "$1/rootfs" "$4" && shift 4 && exec "$@"';
  try {
    const file = join(mountpoint, 'rootfs/count');
    return await untilCounted(() => file, at, [
      ...(['sh', '-c', script, '-', mountpoint, snapshot, clone, newRoot] as [string, ...string[]]),
      ...criu,
    ]);
  } finally {
    const pid = readFileSync(join(place, `pid-${n}`), 'utf8').trim();
    run(
      'sh',
      '-c',
      `kill -9 ${pid}; while [ -e /proc/${pid}/root ] && kill -0 ${pid} 2>/dev/null; do sleep 0.02; done`,
    );
    for (const { folder } of tmpfs) run('umount', folder);
    run('umount', newRoot);
    destroy(clone);
    rmSync(join(place, `pid-${n}`));
  }
}

/** The number that the checkpoint was taken at, by its disk. */
export function numberAt(snapshot: string): string {
  const [probe, folder] = [`${root}/bare-probe`, `${state}/run/bare-probe`];
  run('zfs', 'clone', '-o', `mountpoint=${folder}`, snapshot, probe);
  try {
    return readFileSync(`${folder}/rootfs/count`, 'utf8');
  } finally {
    destroy(probe);
  }
}

/** Destroys a dataset that was mounted until a moment before: zfs-fuse hears of an unmount a little late. */
export function destroy(dataset: string): void {
  const script = 'n=0; until zfs destroy "$1"; do n=$((n + 1)); [ $n -lt 50 ] || exit 1; sleep 0.1; done';
  run('sh', '-c', script, '-', dataset);
}

/** The checkpoint's image on the tmpfs, where ours is read from too. */
function copyImage(snapshot: string, place: string): string {
  const [clone, folder, images] = [`${root}/bare-image`, join(place, 'source'), join(place, 'image')];
  run('zfs', 'clone', '-o', `mountpoint=${folder}`, snapshot, clone);
  cpSync(join(folder, 'image'), images, { recursive: true });
  destroy(clone);
  return images;
}

/** New mounts for those that the image leaves out (src/criu/tmpfs.ts). */
function tmpfsOf(images: string, place: string): { key: string; folder: string }[] {
  if (!readdirSync(images).includes('stasis-tmpfs.json')) return [];
  const mounts = JSON.parse(readFileSync(join(images, 'stasis-tmpfs.json'), 'utf8')) as {
    key: string;
    source: string;
    options: string[];
    tree?: TreeNode[];
  }[];
  return mounts.map(({ key, source: device, options, tree = [] }) => {
    const folder = join(place, key);
    mkdirSync(folder, { recursive: true });
    run('mount', '-t', 'tmpfs', '-o', options.join(','), device, folder);
    makeTree(folder, tree);
    return { key, folder };
  });
}
