import type { CheckpointUsage, DiskUsage } from '../../proto/gen/stasis/stasis.ts';
import type { Session } from '../session.ts';
import { table } from '../table.ts';
import { printable } from '../text.ts';
import { milliseconds, duration, size } from '../../units.ts';
import { checkpointUsageView, usageView } from '../view.ts';

/** Names in the column KEPT: a line should fit in a terminal's. */
const MAX_KEPT_FOR = 2;
/** Characters of a name in a table; the whole is in the JSON. */
const MAX_NAME = 48;
const SIZES = ['UNIQUE', 'SHARED', 'REFERENCED'];

/** `stasis df` */
export async function df(session: Session, options: { allNamespaces?: boolean }): Promise<void> {
  const answer = await session.stasis.diskUsage(
    { namespace: session.globals.namespace, allNamespaces: options.allNamespaces ?? false },
    session.options,
  );
  const { entries, checkpoints, pool, poolHealth, poolFreeBytes, poolSizeBytes } = answer;
  session.print(
    () => ({
      entries: entries.map(usageView),
      checkpoints: checkpoints.map(checkpointUsageView),
      pool: {
        name: pool,
        health: poolHealth,
        sizeBytes: Number(poolSizeBytes),
        freeBytes: Number(poolFreeBytes),
      },
    }),
    () => {
      const now = session.host.now();
      const rows = entries.map((entry) => [
        entry.kind,
        cut(entry.container) || '-',
        size(entry.uniqueBytes),
        size(entry.sharedBytes),
        size(entry.referencedBytes),
        keptBy(entry, now),
        entry.dataset,
      ]);
      const titles = ['KIND', 'CONTAINER', ...SIZES, 'KEPT', 'DATASET'];
      const state = `${size(poolFreeBytes)} free of ${size(poolSizeBytes)}, ${poolHealth}`;
      const disks = table(titles, rows, SIZES);
      return `${disks}${sumsOf(checkpoints)}pool ${printable(`${pool}: ${state}`)}\n`;
    },
    () => entries.map(({ dataset }) => dataset),
  );
}

/** A key of containerd's may have a thousand characters. */
function cut(name: string): string {
  const characters = Array.from(name);
  return characters.length <= MAX_NAME ? name : `${characters.slice(0, MAX_NAME - 1).join('')}…`;
}

/** A line for each checkpoint, disk and memory together; nothing where there are none. */
function sumsOf(checkpoints: readonly CheckpointUsage[]): string {
  if (checkpoints.length === 0) return '';
  const rows = checkpoints.map((sum) => [
    `${cut(sum.container)}@${sum.name}`,
    size(sum.uniqueBytes),
    size(sum.sharedBytes),
    size(sum.referencedBytes),
  ]);
  return `\n${table(['CHECKPOINT', ...SIZES], rows, SIZES)}\n`;
}

/** The first names without their folders, which the column DATASET shows; `--json` has them all. */
function shortened(datasets: readonly string[]): string {
  const names = datasets.map((dataset) => dataset.slice(dataset.lastIndexOf('/') + 1));
  const more = names.length - MAX_KEPT_FOR;
  const text = names.slice(0, MAX_KEPT_FOR).join(', ');
  return more > 0 ? `${text} and ${more} more` : text;
}

/** Why something in the trash is still there. */
function keptBy({ waitsFor, expiresAt }: DiskUsage, now: number): string {
  if (waitsFor.length > 0) return `for ${shortened(waitsFor)}`;
  if (expiresAt === undefined) return '-';
  const left = milliseconds(expiresAt) - now;
  return left <= 0 ? 'until the next sweep' : `for ${duration(Math.ceil(left / 1000) * 1e9)}`;
}
