// Group `install`: what the command line costs to start, and the size of the package.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { median, type Options, report, run, timed } from './measure.ts';

const project = join(import.meta.dirname, '../..');
const root = process.env['STASIS_ROOT'] ?? '';
/** Checkpoints that are listed. */
const MANY = 1000;
const TO_REACH = { version: 1.5, ls: 1.5, megabytes: 60 };

export default async function install(options: Options): Promise<void> {
  const wanted = (name: string): boolean => name.includes(options.only);
  if (wanted('cli-version')) version(options);
  if (wanted('cli-ls')) list(options);
  if (wanted('deb-size')) size(options);
}

/** Runs two programs in turn, and answers the median of each in milliseconds. */
function inTurn(runs: number, ours: () => void, theirs: () => void): { ours: number; peer: number } {
  const samples = { ours: [] as number[], peer: [] as number[] };
  for (let n = 0; n <= runs; n++) {
    const [a, b] = [timed(ours), timed(theirs)];
    if (n === 0) continue; // the first fills caches, our compile cache among them
    samples.ours.push(a);
    samples.peer.push(b);
  }
  return { ours: median(samples.ours), peer: median(samples.peer) };
}

function version(options: Options): void {
  const runs = options.runs ?? 21; // short, and so many
  const stasis = join(project, 'dist/stasis');
  const result = inTurn(
    runs,
    () => run(stasis, 'version'),
    () => run(process.execPath, '-e', '0'),
  );
  report(
    {
      name: 'cli-version',
      unit: 'ms',
      ...result,
      runs,
      peerName: 'node -e 0 of the same Node',
      target: TO_REACH.version,
    },
    options,
  );
}

function list(options: Options): void {
  const runs = options.runs ?? 7;
  run(join(project, 'scripts/lib/image'), '/tmp/bench-install.tar');
  run('ctr', 'images', 'import', '--snapshotter', 'stasis', '/tmp/bench-install.tar');
  rmSync('/tmp/bench-install.tar');
  const flags = ['--null-io', '--runtime', 'io.containerd.stasis.v2', '--snapshotter', 'stasis'];
  const image = 'docker.io/stasis/busybox:latest';
  run('ctr', 'run', '-d', ...flags, image, 'b-many', 'sh', '-c', 'while sleep 60; do :; done');
  for (let n = 0; n < MANY; n++) run('stasis', 'checkpoint', 'b-many', '--disk-only', '--name', `c${n}`);
  const result = inTurn(
    runs,
    () => run('stasis', 'ls'),
    () => run('zfs', 'list', '-r', '-t', 'snapshot', root),
  );
  report(
    {
      name: 'cli-ls',
      unit: 'ms',
      ...result,
      runs,
      peerName: `zfs list of ${MANY} snapshots`,
      target: TO_REACH.ls,
    },
    options,
  );
  for (const command of ['ctr tasks rm -f b-many', 'ctr containers rm b-many'])
    spawnSync('sh', ['-c', command]);
  for (let n = 0; n < MANY; n += 100) {
    run('stasis', 'rm', 'b-many', ...Array.from({ length: 100 }, (_, index) => `c${n + index}`));
  }
}

function size(options: Options): void {
  const folder = mkdtempSync(join(tmpdir(), 'stasis-bench-'));
  try {
    run(join(project, 'scripts/package'), '--arch', 'amd64', '--only', 'stasis', '--out', folder);
    const name = readdirSync(folder).find((file) => file.endsWith('_amd64.deb')) ?? '';
    const ours = statSync(join(folder, name)).size / 1e6;
    report(
      {
        name: 'deb-size',
        unit: 'MB',
        ours,
        peer: TO_REACH.megabytes,
        runs: 1,
        peerName: 'the most that was set',
        target: 1,
      },
      options,
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
}
