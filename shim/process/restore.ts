import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { defaultCriuOptions } from '../../src/checkpoint/stock.ts';
import { makeCgroupYard } from '../../src/criu/cgroup-yard.ts';
import { describeFailure, lastError } from '../../src/criu/log.ts';
import { remakeTmpfs } from '../../src/criu/tmpfs.ts';
import { isOciError, OciError } from '../../src/oci/error.ts';
import type { OciRuntime, RestoreOptions } from '../../src/oci/types.ts';
import { editConfig } from '../container/config-file.ts';
import { unmountBelow } from '../container/rootfs.ts';
import { withLoopback } from './loopback.ts';

/** Where the mounts stand that a restore hands to CRIU, while it works. */
export function criuFolder(bundle: string): string {
  return join(bundle, 'criu');
}

/** Has the OCI runtime restore a container from an image, with what the image itself leaves to us. */
export async function restoreFrom(
  runtime: OciRuntime,
  options: Omit<RestoreOptions, 'detach' | 'noSubreaper'>,
): Promise<void> {
  const { imageDir, workDir, bundle } = options;
  await mkdir(workDir, { recursive: true, mode: 0o711 });
  const yardFolder = join(criuFolder(bundle), 'cgroups');
  await using tmpfs = await remakeTmpfs(imageDir, criuFolder(bundle));
  const lines = [...tmpfs.lines, ...(await makeCgroupYard(yardFolder))];
  const criuConfig = join(workDir, 'criu.conf');
  await writeFile(criuConfig, `${lines.join('\n')}\n`, { mode: 0o600 });
  // crun has CRIU restore the interface with the namespace.
  if (runtime.name === 'runc') await editConfig(bundle, withLoopback);
  try {
    await runtime.restore({ ...options, ...defaultCriuOptions, criuConfig, detach: true, noSubreaper: true });
  } catch (error) {
    throw await withReason(error, options);
  } finally {
    // An image of a host with other hierarchies has CRIU mount its own there.
    await unmountBelow(yardFolder);
  }
}

/** The runtime's words, and CRIU's own: the former only name CRIU's log, and that goes with the bundle. */
async function withReason(
  error: unknown,
  { id, workDir }: Pick<RestoreOptions, 'id' | 'workDir'>,
): Promise<unknown> {
  if (!isOciError(error, 'criu')) return error;
  const failure = await lastError(join(workDir, 'restore.log'));
  if (failure === undefined) return error;
  return new OciError('criu', 'restore', {
    subject: id,
    said: `${error.said}: ${describeFailure(failure)}`,
    exitCode: error.exitCode,
  });
}
