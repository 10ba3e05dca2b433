import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** What the shim changes of a bundle's config.json; the rest stays as it is. */
export interface BundleConfig {
  linux?: {
    cgroupsPath?: string;
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

/** A bundle's config.json. */
export function readConfig(bundle: string): BundleConfig {
  return JSON.parse(readFileSync(join(bundle, 'config.json'), 'utf8')) as BundleConfig;
}

/**
 * Changes a bundle's config.json before the OCI runtime reads it: as a whole, readable by root alone. On this thread: bundles
 * are on a tmpfs.
 */
export function editConfig(bundle: string, edit: (config: BundleConfig) => BundleConfig): void {
  const path = join(bundle, 'config.json');
  const before = readConfig(bundle);
  const after = edit(before);
  if (after === before) return;
  const part = `${path}.part`;
  writeFileSync(part, JSON.stringify(after), { mode: 0o600 });
  renameSync(part, path);
}
