import { stat } from 'node:fs/promises';
import type { Config } from '../../src/config/config.ts';
import { refuseCoreFile } from '../../src/sys/core-file.ts';
import { yieldToParent } from '../../src/sys/process.ts';
import { poolMade, widenPool } from '../../src/sys/thread-pool.ts';
import { Shim, type ShimStart } from '../lifecycle/shim.ts';
import { Paths } from '../paths.ts';
import { GuardLink } from './link.ts';

/** The action `worker`, which a guard alone calls: serves as the shim, behind the guard, until there is nothing to do. */
export async function work(config: Config): Promise<void> {
  refuseCoreFile();
  widenPool();
  const guard = await GuardLink.open();
  yieldToParent();
  await stat('/'); // on the pool
  poolMade();
  const paths = new Paths(config.daemon.run_dir);
  const shim = await Shim.listen({ ...(guard.begin.start as ShimStart), config, paths, guard });
  await shim.served;
  process.exit(0);
}
