// The container that counts, under runc by hand: no containerd, no shim, and an image on a tmpfs, the best place for it.
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { untilCounted } from '../clone-bare.ts';
import { assertHeld, counter } from '../counter.ts';
import { run } from '../measure.ts';
import { importSmall } from './images.ts';

const state = process.env['STASIS_STATE'] ?? '';
const runc = process.env['STASIS_RUNC'] ?? 'runc';

export interface Bare {
  readonly bundle: string;
  /** Where it writes its number, as the host sees it. */
  readonly count: string;
  /** On a tmpfs, and empty at first. */
  readonly images: string;
  /** For CRIU's logs and figures. */
  readonly work: string;
  /** Ends the program with an error where runc fails. */
  readonly runc: (...args: string[]) => void;
  /** The same, to be called by somebody else. */
  readonly command: (...args: string[]) => [string, ...string[]];
}

/** Runs `use` with a container `name` that counts and holds so many megabytes, and removes it. */
export async function withBare<T>(
  name: string,
  megabytes: number,
  use: (bare: Bare) => Promise<T>,
): Promise<T> {
  const [bundle, images] = [join(state, 'data', name), mkdtempSync(`${state}/run/${name}-`)];
  const [rootfs, work] = [join(bundle, 'rootfs'), join(bundle, 'work')];
  const command = (...args: string[]): [string, ...string[]] => [
    runc,
    '--root',
    join(bundle, 'state'),
    ...args,
  ];
  const bare: Bare = {
    bundle,
    count: join(rootfs, 'count'),
    images,
    work,
    command,
    runc(...args) {
      const [program, ...rest] = command(...args);
      const { status } = spawnSync(program, rest, { stdio: 'ignore' });
      if (status !== 0) throw new Error(`runc ${args.join(' ')} ended with ${status}: see ${work}`);
    },
  };
  try {
    for (const folder of [rootfs, work]) mkdirSync(folder, { recursive: true });
    fill(rootfs);
    run('sh', '-c', 'cd "$1" && exec "$2" spec', '-', bundle, runc);
    writeSpec(join(bundle, 'config.json'), name, counter(megabytes, 0));
    bare.runc('run', '-d', '--bundle', bundle, name);
    await untilCounted(() => bare.count, '', ['true']);
    assertHeld(pidIn(bare.command('state', name)), megabytes);
    return await use(bare);
  } finally {
    const [program, ...rest] = command('delete', '--force', name);
    spawnSync(program, rest, { stdio: 'ignore' });
    for (const folder of [bundle, images]) rmSync(folder, { recursive: true, force: true });
  }
}

function pidIn([program, ...args]: [string, ...string[]]): number {
  return (JSON.parse(run(program, ...args)) as { pid: number }).pid;
}

/** What the small image holds. */
function fill(rootfs: string): void {
  const mounted = mkdtempSync(join(state, 'data/tmp/mounted-'));
  run('ctr', 'images', 'mount', '--snapshotter', 'overlayfs', importSmall(), mounted);
  run('cp', '-a', `${mounted}/.`, rootfs);
  run('ctr', 'images', 'unmount', '--snapshotter', 'overlayfs', '--rm', mounted);
  rmSync(mounted, { recursive: true });
}

function writeSpec(path: string, name: string, args: string[]): void {
  const spec = JSON.parse(readFileSync(path, 'utf8')) as {
    process: { terminal: boolean; args: string[] };
    root: { readonly: boolean };
    linux: { cgroupsPath?: string };
  };
  spec.process.terminal = false;
  spec.process.args = args;
  spec.root.readonly = false;
  spec.linux.cgroupsPath = `/stasis-bench/${name}`;
  writeFileSync(path, JSON.stringify(spec));
}
