import type { Config } from '../config/config.ts';
import { FailedPrecondition } from '../errors.ts';
import type { Zfs } from '../zfs/zfs.ts';

/**
 * The dataset that holds everything: the configured one, else `<pool>/stasis` of the only pool.
 * @throws FailedPrecondition where there is no pool, or more than one to choose from
 */
export async function rootDataset(zfs: Zfs, config: Config): Promise<string> {
  const pools = await zfs.pools();
  const configured = config.zfs.root;
  if (configured !== '') {
    const pool = configured.split('/')[0] ?? configured;
    if (pools.includes(pool)) return configured;
    throw new FailedPrecondition(`there is no pool ${pool}, which zfs.root = "${configured}" needs`, {
      subject: pool,
      reason: 'no-pool',
      remedy:
        pools.length === 0
          ? `import it with: zpool import ${pool}`
          : `the pools here are ${pools.join(', ')}: correct zfs.root`,
    });
  }
  const [only] = pools;
  if (pools.length === 1 && only !== undefined) return `${only}/stasis`;
  if (pools.length === 0) {
    throw new FailedPrecondition('there is no ZFS pool', {
      subject: 'zfs',
      reason: 'no-pool',
      remedy: 'create one with: zpool create tank DEVICE',
    });
  }
  throw new FailedPrecondition(`there are several pools: ${pools.join(', ')}`, {
    subject: 'zfs',
    reason: 'several-pools',
    remedy: 'name the dataset to use in the configuration: [zfs] root = "POOL/stasis"',
  });
}
