import { mkdirSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { dev, importImage, stack } from '../support/stack.ts';

/** The name of containerd's own runtime. */
export const dropInRuntime = 'io.containerd.runc.v2';

/**
 * For a file's tests, our shim stands under the name of containerd's own, in a folder ahead of it on containerd's PATH, as
 * the package has it. containerd looks a shim up once, hence the restarts.
 */
export function dropIn(): void {
  const place = join(stack.state, 'drop-in');
  before(async () => {
    await importImage();
    mkdirSync(place, { recursive: true });
    const ours = join(stack.project, 'dist/containerd-shim-stasis-v2');
    symlinkSync(ours, join(place, 'containerd-shim-runc-v2'));
    await dev('restart', 'containerd');
  });
  after(async () => {
    rmSync(place, { recursive: true });
    await dev('restart', 'containerd');
  });
}
