import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { fillRootfs } from './rootfs.ts';

export const imageName = 'docker.io/stasis/test:latest';

/** Builds the test image as a file for `ctr images import`. @param folder a place for what it is made from */
export function buildImage(file: string, folder: string): void {
  fillRootfs(join(folder, 'layer'));
  const builder = join(import.meta.dirname, '../../../scripts/lib/image');
  execFileSync(builder, ['--name', imageName, '--layer', join(folder, 'layer'), file]);
}
