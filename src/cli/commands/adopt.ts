import { datasetName } from '../names.ts';
import type { Session } from '../session.ts';
import { table } from '../table.ts';
import { printable } from '../text.ts';
import { age, size } from '../../units.ts';
import { diskView } from '../view.ts';

/** `stasis adopt [--dry-run] [--drop] [DATASET…]` */
export async function adopt(
  session: Session,
  datasets: readonly string[],
  options: { dryRun?: boolean; drop?: boolean },
): Promise<void> {
  const { dryRun = false, drop = false } = options;
  const { adopted, skipped, dropped } = await session.stasis.adopt(
    { dryRun, drop, datasets: datasets.map(datasetName) },
    session.options,
  );
  const disks = drop ? dropped : adopted;
  session.print(
    () => ({ dryRun, adopted: adopted.map(diskView), skipped, dropped: dropped.map(diskView) }),
    () => {
      const now = session.host.now();
      const rows = disks.map((disk) => [
        disk.dataset,
        disk.namespace || '-',
        disk.container || '-',
        age(disk.createdAt, now),
        size(disk.usedBytes),
      ]);
      const word = drop ? 'dropped' : 'adopted';
      const done = dryRun ? `would be ${word}` : word;
      const found =
        rows.length === 0
          ? `nothing ${done}\n`
          : `${table(['DATASET', 'NAMESPACE', 'CONTAINER', 'CREATED', 'USED'], rows, ['USED'])}${rows.length} ${done}\n`;
      return found + skipped.map((reason) => `skipped: ${printable(reason)}\n`).join('');
    },
    () => disks.map(({ dataset }) => dataset),
  );
}
