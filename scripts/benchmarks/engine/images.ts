// The images that the rows of group `engine` use. No row itself.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../measure.ts';

const state = process.env['STASIS_STATE'] ?? '';
const project = join(import.meta.dirname, '../../..');

function importImage(name: string, flags: readonly string[], snapshotters: readonly string[]): string {
  const reference = `docker.io/bench/engine-${name}:latest`;
  if (run('ctr', 'images', 'ls', '-q').split('\n').includes(reference)) return reference;
  const file = join(state, 'data/engine.tar');
  run(join(project, 'scripts/lib/image'), '--name', reference, ...flags, file);
  for (const snapshotter of snapshotters) run('ctr', 'images', 'import', '--snapshotter', snapshotter, file);
  rmSync(file);
  return reference;
}

/** Busybox alone, for both snapshotters. */
export function importSmall(): string {
  return importImage('small', [], ['stasis', 'overlayfs']);
}

/** Busybox and 1 GB of files. */
export function importLarge(): string {
  return importImage('large', ['--size', '1G', '--files', '64'], ['stasis']);
}

/** Busybox, and Debian packages with all that they need. */
export function importDebian(name: string, ...packages: string[]): string {
  const root = run(join(project, 'scripts/lib/debian-rootfs'), name, ...packages).trim();
  return importImage(name, ['--layer', root], ['stasis']);
}
