import { access, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { unmountBelow } from './rootfs.ts';
import type { ContainerRuntime } from './runtime.ts';

/**
 * Takes away the OCI runtime's folder of a container that does not live any more, which would make every `create` of that name
 * fail for ever. One that lives, or that the runtime says nothing about though it has a state, is left to the runtime's refusal.
 */
export async function clearStale(id: string, { door, record }: ContainerRuntime): Promise<void> {
  const folder = join(record.root, id);
  if (!(await exists(folder))) return;
  const state = await door.state(id).catch(() => undefined);
  if (state !== undefined && state.status !== 'stopped') return;
  if (state === undefined && (await hasState(folder))) return;
  await door.delete(id, { force: true }).catch(() => undefined);
  // Never with something mounted in it: those are the container's files.
  await unmountBelow(folder);
  await rm(folder, { recursive: true, force: true });
}

/** runc's state file, and crun's. */
async function hasState(folder: string): Promise<boolean> {
  const found = await Promise.all(['state.json', 'status'].map((name) => exists(join(folder, name))));
  return found.includes(true);
}

/** Not on this thread: a client may have named the place. */
async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
