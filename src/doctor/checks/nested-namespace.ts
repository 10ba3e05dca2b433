import { nameProcess, type ProcessView } from '../container-view.ts';
import type { Check, Obstacle } from '../obstacle.ts';

/** Processes in a namespace of their own, as a sandbox or another container engine inside makes them. */
export const nestedNamespace: Check = (view) => {
  const init = view.processes.find(({ pid }) => pid === view.init);
  if (init === undefined) return [];
  const namespace = (process: ProcessView, kind: string): string =>
    view.proc.link(`/proc/${process.pid}/ns/${kind}`);
  const found: Obstacle[] = [];
  for (const process of view.processes) {
    const kind =
      process.pids.length > init.pids.length
        ? 'pid'
        : (['user', 'net'] as const).find((name) => {
            const own = namespace(process, name);
            return own !== '' && own !== namespace(init, name);
          });
    if (kind === undefined) continue;
    found.push({
      name: 'nested-namespace',
      severity: 'error',
      subject: nameProcess(process),
      message: `has a ${kind === 'net' ? 'network' : kind} namespace of its own inside the container, which CRIU cannot dump`,
      remedy: 'switch its sandbox off (browsers: --no-sandbox), or run it as a container of its own',
    });
  }
  return found;
};
