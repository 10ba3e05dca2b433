import { datasetName } from '../names.ts';
import type { Session } from '../session.ts';
import { table } from '../table.ts';
import { printable } from '../text.ts';
import { age, size } from '../../units.ts';
import { diskView } from '../view.ts';

/** `stasis adopt [--dry-run] [DATASET…]` */
export async function adopt(
  session: Session,
  datasets: readonly string[],
  options: { dryRun?: boolean },
): Promise<void> {
  const dryRun = options.dryRun ?? false;
  const { adopted, skipped } = await session.stasis.adopt(
    { dryRun, datasets: datasets.map(datasetName) },
    session.options,
  );
  session.print(
    () => ({ dryRun, adopted: adopted.map(diskView), skipped }),
    () => {
      const now = session.host.now();
      const rows = adopted.map((disk) => [
        disk.dataset,
        disk.namespace || '-',
        disk.container || '-',
        age(disk.createdAt, now),
        size(disk.usedBytes),
      ]);
      const done = dryRun ? 'would be adopted' : 'adopted';
      const found =
        rows.length === 0
          ? `nothing ${done}\n`
          : `${table(['DATASET', 'NAMESPACE', 'CONTAINER', 'CREATED', 'USED'], rows, ['USED'])}${rows.length} ${done}\n`;
      return found + skipped.map((reason) => `skipped: ${printable(reason)}\n`).join('');
    },
    () => adopted.map(({ dataset }) => dataset),
  );
}
