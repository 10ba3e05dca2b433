// Group `engine`: what a checkpoint costs beside its image, when nothing or little has changed.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { buildImage, imageName } from '../../test/system/support/image.ts';
import { pidOf, remove } from './counter.ts';
import { cloneRows } from './engine/clones.ts';
import { frozenRows } from './engine/frozen.ts';
import { databases } from './engine/databases.ts';
import { rewindRate } from './engine/rewind-rate.ts';
import { median, type Options, report, run, timed } from './measure.ts';

const state = process.env['STASIS_STATE'] ?? '';

/**
 * Holds memory of which no two pages are alike. For each number in /ask it changes every twentieth page; with a `+` behind
 * it, its heap grows by 1 MB of small pieces as well.
 */
const program = `
my ($megabytes) = @ARGV; my $pages = $megabytes * 256; my ($last, @heap) = ('');
for my $p (1 .. $pages) { $buf .= pack('L4', $p, $p * 7, $p * 13, $p * 31) . ('abcdefgh' x 510) }
while (1) {
  select undef, undef, undef, 0.01;
  open my $q, '<', '/ask' or next; my $ask = <$q>; close $q;
  next if !defined $ask or $ask eq '' or $ask eq $last; $last = $ask;
  if ($ask =~ /[+]/) { push @heap, 'y' x 1000 for 1 .. 1000 }
  if ($ask > 0) { for (my $i = $ask % 20; $i < $pages; $i += 20) { substr($buf, $i * 4096, 8) = pack 'L2', $ask, $i } }
  open my $a, '>', '/done.new'; print $a $ask; close $a; rename '/done.new', '/done';
}`;

function start(name: string, megabytes: number): void {
  const kind = ['--runtime', 'io.containerd.stasis.v2', '--snapshotter', 'stasis'];
  run(
    'ctr',
    'run',
    '-d',
    '--null-io',
    ...kind,
    imageName,
    name,
    '/bin/perl',
    '-e',
    program,
    String(megabytes),
  );
  ask(name, '0');
}

function ask(name: string, what: string): void {
  const root = `/proc/${pidOf(name)}/root`;
  writeFileSync(`${root}/ask`, what);
  for (let tries = 0; ; tries++) {
    try {
      if (readFileSync(`${root}/done`, 'latin1') === what) return;
    } catch {
      // not yet
    }
    if (tries > 6000) throw new Error(`${name} does not answer`);
    run('sleep', '0.02');
  }
}

interface Taken {
  readonly memoryBytes: number;
  readonly writtenBytes: number;
  readonly timings: { readonly frozenNs: number };
}

function take(container: string, name: string): Taken {
  const text = run('stasis', 'checkpoint', container, '--name', name, '--require-memory', '--json');
  return (JSON.parse(text) as { checkpoint: Taken }).checkpoint;
}

/** Bytes that two snapshots alone hold. */
function heldBy(container: string, name: string): number {
  const dataset = `${process.env['STASIS_ROOT'] ?? ''}/containers/default/${container}`;
  const names = [`${dataset}@${name}`, `${dataset}/memory@${name}`];
  const sizes = run('zfs', 'get', '-Hp', '-o', 'value', 'used', ...names)
    .trim()
    .split('\n');
  return sizes.reduce((sum, size) => sum + Number(size), 0);
}

function removeWithCheckpoints(name: string, checkpoints: readonly string[]): void {
  remove(name);
  if (checkpoints.length > 0) run('stasis', 'rm', name, ...checkpoints);
}

function unchanged(runs: number, tell: (name: string, measure: Row) => void): void {
  start('e-still', 8);
  const [full, second, held]: [number[], number[], number[]] = [[], [], []];
  const names: string[] = [];
  for (let n = 0; n <= runs; n++) {
    // It runs for a moment, so that the next one is a full one; both are of a paused container.
    ask('e-still', String(n + 1));
    run('ctr', 'tasks', 'pause', 'e-still');
    const one = timed(() => void take('e-still', `full${n}`));
    let taken: Taken | undefined;
    const two = timed(() => (taken = take('e-still', `second${n}`)));
    names.push(`full${n}`, `second${n}`);
    held.push((taken?.writtenBytes ?? NaN) + heldBy('e-still', `second${n}`));
    run('ctr', 'tasks', 'resume', 'e-still');
    if (n === 0) continue; // warm-up
    full.push(one);
    second.push(two);
  }
  removeWithCheckpoints('e-still', names);
  tell('unchanged', { unit: 'B', ours: Math.max(...held), peer: 1, peerName: 'one byte', target: 0 });
  const peerName = 'a full checkpoint of the same';
  tell('unchanged-time', { unit: 'ms', ours: median(second), peer: median(full), peerName, target: 0.25 });
}

function rewrite(megabytes: number, runs: number, grow: boolean): { written: number; image: number } {
  const container = grow ? 'e-grown' : 'e-rewrite';
  start(container, megabytes);
  take(container, 'c0');
  const [written, image]: [number[], number[]] = [[], []];
  const names = ['c0'];
  for (let n = 1; n <= runs; n++) {
    ask(container, `${n}${grow ? '+' : ''}`);
    const taken = take(container, `c${n}`);
    names.push(`c${n}`);
    written.push(taken.writtenBytes);
    image.push(taken.memoryBytes);
  }
  removeWithCheckpoints(container, names);
  return { written: median(written) / 2 ** 20, image: median(image) / 2 ** 20 };
}

interface Row {
  readonly unit: string;
  readonly ours: number;
  readonly peer: number;
  readonly peerName: string;
  readonly target: number;
}

export default async function main(options: Options): Promise<void> {
  const wanted = (name: string): boolean => name.includes(options.only);
  const folder = mkdtempSync(join(state, 'data/tmp/image-'));
  buildImage(join(folder, 'image.tar'), folder);
  run('ctr', 'images', 'import', '--snapshotter', 'stasis', join(folder, 'image.tar'));
  rmSync(folder, { recursive: true });
  const runs = options.runs ?? 5;
  const tell = (name: string, row: Row, counted = runs): void => {
    if (wanted(name)) report({ name, ...row, runs: counted }, options);
  };
  if (wanted('unchanged') || wanted('unchanged-time')) unchanged(runs, tell);
  for (const [name, grow, target] of [
    ['rewrite-5pct', false, 0.08],
    ['rewrite-grown', true, 0.09],
  ] as const) {
    if (!wanted(name)) continue;
    const { written, image } = rewrite(512, runs, grow);
    tell(name, { unit: 'MiB', ours: written, peer: image, peerName: 'its image', target });
  }
  if (wanted('frozen-drift')) {
    start('e-drift', 8);
    const names = Array.from({ length: 20 }, (_, n) => `c${n + 1}`);
    const frozen = names.map((name) => take('e-drift', name).timings.frozenNs / 1e6);
    removeWithCheckpoints('e-drift', names);
    const [second = NaN, last = NaN] = [frozen[1], frozen[19]];
    tell('frozen-drift', { unit: 'ms', ours: last, peer: second, peerName: 'the 2nd of 20', target: 1.2 }, 1);
  }
  await frozenRows(options, wanted);
  await databases(options, wanted);
  await cloneRows(options, wanted);
  await rewindRate(options, wanted);
}
