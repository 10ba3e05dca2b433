import { FailedPrecondition, InvalidArgument } from '../src/errors.ts';
import { HasClones } from '../src/zfs/errors.ts';
import { assertKnown } from './adopt.ts';
import { isUnreadable, type Node } from './index.ts';
import { lockName, type Pool } from './pool.ts';
import { patiently } from './remove.ts';
import { splitName } from './snapshot.ts';
import { changing } from './unsettled.ts';

export interface Dropped {
  readonly dropped: readonly Node[];
}

/**
 * Destroys datasets that came from elsewhere and are not wanted, adopted or not, or that cannot be understood, with the memory below them: at once, with no time in the
 * trash. Only by name, and all names are looked at before the first is destroyed.
 * @throws InvalidArgument where none is named; NotFound for what is no dataset of the pool; FailedPrecondition for what is
 *   in use here, has whole checkpoints, or that others stand on
 */
export async function drop(
  pool: Pool,
  owner: string,
  datasets: readonly string[],
  options: { dryRun: boolean; checkpointsOf: (dataset: string) => readonly string[] },
): Promise<Dropped> {
  if (datasets.length === 0) {
    throw new InvalidArgument('no dataset named', {
      subject: 'datasets',
      reason: 'no-name',
      remedy: 'name those to drop: stasis adopt --dry-run shows what came, stasis df what is adopted',
    });
  }
  assertKnown(pool, datasets);
  const nodes = [...new Set(datasets)].map((dataset) => assertDroppable(pool, owner, dataset, options));
  const dropped: Node[] = [];
  for (const node of nodes) {
    if (!options.dryRun) await destroy(pool, owner, node, options);
    dropped.push(node);
  }
  return { dropped };
}

function assertDroppable(
  pool: Pool,
  owner: string,
  dataset: string,
  { checkpointsOf }: { checkpointsOf: (dataset: string) => readonly string[] },
): Node {
  const { index } = pool;
  const node = index.get(dataset);
  const refuse = (why: string, remedy: string): FailedPrecondition =>
    new FailedPrecondition(`dataset ${dataset} ${why}`, {
      subject: dataset,
      reason: 'not-droppable',
      remedy,
    });
  if (node === undefined || (node.snapshot === undefined && !isUnreadable(node))) {
    throw refuse('is no container or layer', 'stasis adopt --dry-run shows what came from elsewhere');
  }
  if (node.snapshot?.owner === owner && node.state !== 'adopted' && !node.received && !node.lost) {
    throw refuse(
      "is this containerd's",
      'remove the container or image with its client; its checkpoints with stasis rm',
    );
  }
  const { namespace, key } = splitName(node.snapshot?.name ?? '');
  const checkpoints = checkpointsOf(dataset);
  if (checkpoints.length > 0) {
    throw refuse(
      `has the checkpoints ${checkpoints.join(', ')}`,
      node.snapshot === undefined
        ? 'remove them first, by name, with stasis rm: stasis ls --all-namespaces shows whose they are'
        : `remove them first, by name: stasis -n ${namespace} rm ${key} ${checkpoints.join(' ')}`,
    );
  }
  const clones = index.tree(dataset).flatMap((each) => index.clonesOf(each));
  if (clones.length > 0) throw standsOn(dataset, clones);
  return node;
}

async function destroy(
  pool: Pool,
  owner: string,
  node: Node,
  options: { checkpointsOf: (dataset: string) => readonly string[] },
): Promise<void> {
  const { dataset, snapshot } = node;
  await changing(
    pool,
    { exclusive: [lockName(snapshot?.owner ?? '', snapshot?.name ?? dataset)] },
    async () => {
      assertDroppable(pool, owner, dataset, options); // another call may have been quicker
      try {
        await patiently(async () => {
          await pool.mounter.unmount(dataset);
          await pool.mounter.unmount(`${dataset}/memory`);
          await pool.zfs.destroyIdempotent(dataset, { recursive: true });
        });
      } catch (error) {
        if (error instanceof HasClones) throw standsOn(dataset, []);
        throw error;
      }
      pool.index.delete(dataset);
      pool.index.dropRetired(node.origin);
      pool.log.info('a dataset from elsewhere is destroyed by name', { dataset });
    },
  );
}

function standsOn(dataset: string, clones: readonly Node[]): FailedPrecondition {
  const names = clones.slice(0, 2).map((clone) => clone.dataset);
  const who = names.length === 0 ? 'clones' : names.join(', ') + (clones.length > 2 ? ' and others' : '');
  return new FailedPrecondition(`${who} stand on dataset ${dataset}`, {
    subject: dataset,
    reason: 'not-droppable',
    remedy: 'drop or remove these first',
  });
}
