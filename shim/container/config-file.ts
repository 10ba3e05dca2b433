import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/** What the shim changes of a bundle's config.json; the rest stays as it is. */
export interface BundleConfig {
  linux?: {
    seccomp?: Seccomp;
    namespaces?: { type: string; path?: string }[];
    [key: string]: unknown;
  };
  hooks?: { createRuntime?: Hook[]; [key: string]: unknown };
  [key: string]: unknown;
}

export interface Hook {
  path: string;
  args?: string[];
  env?: string[];
  /** Seconds. */
  timeout?: number;
}

export interface SyscallRule {
  names: string[];
  action: string;
  errnoRet?: number;
  args?: unknown[];
}

export interface Seccomp {
  defaultAction: string;
  syscalls?: SyscallRule[];
  [key: string]: unknown;
}

/** Changes a bundle's config.json before the OCI runtime reads it: as a whole, readable by root alone. */
export async function editConfig(
  bundle: string,
  edit: (config: BundleConfig) => BundleConfig,
): Promise<void> {
  const path = join(bundle, 'config.json');
  const before = JSON.parse(await readFile(path, 'utf8')) as BundleConfig;
  const after = edit(before);
  if (after === before) return;
  const part = `${path}.part`;
  await writeFile(part, JSON.stringify(after), { mode: 0o600 });
  await rename(part, path);
}
