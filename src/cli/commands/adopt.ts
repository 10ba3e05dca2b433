import { StasisError } from '../../errors.ts';
import { errorOf } from '../failure.ts';
import { faultView } from '../fault.ts';
import { datasetName } from '../names.ts';
import type { Session } from '../session.ts';
import { table } from '../table.ts';
import { printable } from '../text.ts';
import { age, size } from '../../units.ts';
import { diskView } from '../view.ts';

/** `stasis adopt [--dry-run] [--drop] [DATASET…]` @throws the first failure's code where not all could be taken over, after saying which were */
export async function adopt(
  session: Session,
  datasets: readonly string[],
  options: { dryRun?: boolean; drop?: boolean },
): Promise<void> {
  const { dryRun = false, drop = false } = options;
  const { adopted, skipped, dropped, failed } = await session.stasis.adopt(
    { dryRun, drop, datasets: datasets.map(datasetName) },
    session.options,
  );
  const disks = drop ? dropped : adopted;
  const view = () => ({
    dryRun,
    adopted: adopted.map(diskView),
    skipped,
    failed: failed.map((failure) => ({
      dataset: failure.dataset,
      error: faultView(errorOf(failure, failure.dataset)),
    })),
    dropped: dropped.map(diskView),
  });
  const [first] = failed;
  if (first !== undefined) session.partial = view();
  if (first === undefined || !session.globals.json)
    session.print(
      view,
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
        return [
          found,
          ...skipped.map((reason) => `skipped: ${printable(reason)}\n`),
          ...failed.map(({ dataset, message }) => `failed: ${printable(`${dataset}: ${message}`)}\n`),
        ].join('');
      },
      () => disks.map(({ dataset }) => dataset),
    );
  if (first === undefined) return;
  const error = errorOf(first, first.dataset);
  const all = adopted.length + failed.length;
  throw new StasisError(
    error.code,
    `${failed.length} of ${all} datasets not adopted: ${failed.map(({ dataset }) => dataset).join(', ')}`,
    { cause: error, subject: first.dataset, reason: 'not-all-adopted', remedy: error.remedy },
  );
}
