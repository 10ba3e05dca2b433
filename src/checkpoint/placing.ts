import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';

function folderIn(runDir: string): string {
  return join(runDir, 'placing');
}

/**
 * Says to a shim that a container's disk is still being made: a file that is there as long as that lasts, whose path goes
 * with the mount (src/sys/mount-late.ts). When it goes and the disk is not there, it will not come.
 */
export function notePlacing(
  runDir: string,
  namespace: string,
  container: string,
): { path: string; done(): void } {
  const path = join(folderIn(runDir), `${namespace}.${container}`);
  // On this thread, as the run folder is on a tmpfs.
  mkdirSync(folderIn(runDir), { recursive: true, mode: 0o700 });
  writeFileSync(path, '', { mode: 0o600 });
  return { path, done: () => rmSync(path, { force: true }) };
}

/** What an earlier process was making will not come any more. */
export async function endPlacing(runDir: string): Promise<void> {
  await rm(folderIn(runDir), { recursive: true, force: true });
}
