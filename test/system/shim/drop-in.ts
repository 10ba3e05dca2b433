import { mkdirSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { routed } from '../support/daemon.ts';
import { dev, stack } from '../support/stack.ts';

/** The name of containerd's own runtime. */
export const dropInRuntime = 'io.containerd.runc.v2';

const place = join(stack.state, 'drop-in');

/**
 * Puts our shim under the name of containerd's own, in a folder ahead of it on containerd's PATH, as the package has it.
 * containerd looks a shim up once, hence the restart.
 */
export async function installDropIn(): Promise<void> {
  mkdirSync(place, { recursive: true });
  symlinkSync(join(stack.project, 'dist/containerd-shim-stasis-v2'), join(place, 'containerd-shim-runc-v2'));
  await restart();
}

export async function removeDropIn(): Promise<void> {
  rmSync(place, { recursive: true });
  await restart();
}

async function restart(): Promise<void> {
  await dev('restart', 'containerd');
  await routed();
}
