import type { Timestamp } from '../proto/gen/google/protobuf/timestamp.ts';
import type { Shim } from '../proto/gen/stasis/stasis.ts';
import { table } from './table.ts';
import { printable } from './text.ts';

/** So many ends of a shim's workers are shown in text; --json has all that are kept. */
const SHOWN_ENDS = 3;

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
            lastEndAt: timeText(guard.lastEndAt),
            ends: guard.ends.map(({ why, at }) => ({ at: timeText(at), why })),
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

/** How the last workers of each shim ended, the latest first; empty where none has. */
export function endsText(shims: readonly Shim[]): string {
  return shims
    .filter(({ guard }) => guard !== undefined && guard.ends.length > 0)
    .map(({ namespace, pid, guard }) => {
      const { ends = [], restarts = 0 } = guard ?? {};
      const shown = ends.slice(-SHOWN_ENDS).reverse();
      const rows = shown.map(
        ({ why, at }) => `  ${timeText(at) ?? 'at an unknown time'}  ${printable(why)}\n`,
      );
      const of = restarts > shown.length ? `the last ${shown.length} of ${restarts}` : `all ${restarts}`;
      return `\nEnds of workers of shim ${pid} (${printable(namespace || '-')}), ${of}:\n${rows.join('')}`;
    })
    .join('');
}

function timeText(time: Timestamp | undefined): string | null {
  return time === undefined ? null : new Date(Number(time.seconds) * 1000).toISOString();
}
