import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { defaultCriuOptions } from '../../src/checkpoint/stock.ts';
import { remakeTmpfs } from '../../src/criu/tmpfs.ts';
import type { OciRuntime, RestoreOptions } from '../../src/oci/types.ts';

/** Where the mounts stand that a restore hands to CRIU, while it works. */
export function tmpfsFolder(bundle: string): string {
  return join(bundle, 'tmpfs');
}

/** Has the OCI runtime restore a container from an image, with what the image itself leaves to us. */
export async function restoreFrom(
  runtime: OciRuntime,
  options: Omit<RestoreOptions, 'detach' | 'noSubreaper'>,
): Promise<void> {
  const { imageDir, workDir, bundle } = options;
  await mkdir(workDir, { recursive: true, mode: 0o711 });
  await using tmpfs = await remakeTmpfs(imageDir, tmpfsFolder(bundle));
  const criuConfig = join(workDir, 'criu.conf');
  if (tmpfs.lines.length > 0) await writeFile(criuConfig, `${tmpfs.lines.join('\n')}\n`, { mode: 0o600 });
  await runtime.restore({
    ...options,
    ...defaultCriuOptions,
    ...(tmpfs.lines.length > 0 ? { criuConfig } : {}),
    detach: true,
    noSubreaper: true,
  });
}
