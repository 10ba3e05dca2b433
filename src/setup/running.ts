import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isAlive } from '../sys/process.ts';
import { CHECK_NAMESPACE } from './self-check.ts';

/**
 * Containers that run under our shims, as `namespace/id`, from the shims' own records (shim/container/record.ts): neither
 * containerd nor stasisd need be there to be asked.
 * @param runDir `daemon.run_dir`
 */
export function runningContainers(runDir: string): string[] {
  const tasks = join(runDir, 'tasks');
  return namesIn(tasks)
    .filter((namespace) => namespace !== CHECK_NAMESPACE)
    .flatMap((namespace) =>
      namesIn(join(tasks, namespace))
        .filter((id) => runs(join(tasks, namespace, id, 'state.json')))
        .map((id) => `${namespace}/${id}`),
    );
}

function runs(file: string): boolean {
  try {
    const { pid, startTime } = JSON.parse(readFileSync(file, 'utf8')) as {
      pid?: unknown;
      startTime?: unknown;
    };
    return typeof pid === 'number' && pid > 0 && typeof startTime === 'string' && isAlive(pid, startTime);
  } catch {
    return false; // it has just ended, or is no record
  }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder).sort();
  } catch {
    return [];
  }
}
