import type { Shim } from '../proto/gen/stasis/stasis.ts';
import { table } from './table.ts';

/** A shim as --json shows it. */
export function shimView({ namespace, pid, socket, version, containers, guard }: Shim): object {
  return {
    namespace,
    pid,
    socket,
    version,
    containers,
    guard:
      guard === undefined
        ? null
        : {
            version: guard.version,
            protocol: guard.protocol,
            workerPid: guard.workerPid === 0 ? null : guard.workerPid,
            restarts: guard.restarts,
            lastEnd: guard.lastEnd === '' ? null : guard.lastEnd,
            lastEndAt:
              guard.lastEndAt === undefined
                ? null
                : new Date(Number(guard.lastEndAt.seconds) * 1000).toISOString(),
          },
  };
}

/** Shims in columns. */
export function shimTable(shims: readonly Shim[]): string {
  const rows = shims.map(({ namespace, pid, version, guard, containers }) => [
    namespace || '-',
    String(pid),
    version || '-',
    String(containers.length),
    guard?.version ?? 'no guard',
    guard === undefined ? '-' : guard.workerPid === 0 ? 'none' : String(guard.workerPid),
    guard === undefined ? '-' : String(guard.restarts),
    guard?.lastEnd ?? '',
  ]);
  const titles = ['NAMESPACE', 'PID', 'VERSION', 'CONTAINERS', 'GUARD', 'WORKER', 'RESTARTS', 'LAST END'];
  return table(titles, rows, ['PID', 'CONTAINERS', 'WORKER', 'RESTARTS']);
}
