import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { hasErrno } from '../errors.ts';
import type { Cgroup } from './cgroup.ts';

/**
 * CPU time that a cgroup has used since it was made, in nanoseconds: cpuacct.usage in v1, cpu.stat in v2.
 * Undefined where nothing accounts for it.
 */
export async function cpuUsage(cgroup: Cgroup): Promise<bigint | undefined> {
  try {
    if (cgroup.version === 1) {
      const folder = cgroup.folders.get('cpuacct');
      return folder === undefined ? undefined : BigInt(await readFile(join(folder, 'cpuacct.usage'), 'utf8'));
    }
    const text = await readFile(join(cgroup.folders.get('') ?? '', 'cpu.stat'), 'utf8');
    const usage = /^usage_usec (\d+)$/m.exec(text)?.[1];
    return usage === undefined ? undefined : BigInt(usage) * 1000n;
  } catch (error) {
    if (hasErrno(error, 'ENOENT') || hasErrno(error, 'ENODEV')) return undefined;
    throw error;
  }
}
