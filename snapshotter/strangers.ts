import type { Row } from '../src/zfs/zfs.ts';
import { adopt, type Adoption } from './adopt.ts';
import { drop, type Dropped } from './drop.ts';
import { isForeign, type Node } from './index.ts';
import { find, inUse, isFormer, lose } from './lost.ts';
import type { Pool } from './pool.ts';
import { notice } from './received.ts';

/** What is in a pool and not in use by the containerd that is served: of another host, a lost database, or a `zfs receive`. */
export class Strangers {
  readonly #pool: Pool;
  readonly #ownerOr: (owner: string | undefined) => string;

  /** @param ownerOr the containerd that is served, where a call names no other */
  constructor(pool: Pool, ownerOr: (owner: string | undefined) => string) {
    this.#pool = pool;
    this.#ownerOr = ownerOr;
  }

  /** Snapshots of other containerds. */
  foreign(owner?: string): readonly Node[] {
    const ours = this.#ownerOr(owner);
    return [...this.#pool.index.nodes()].filter((node) => isForeign(node, ours));
  }

  /** Takes in what came by `zfs receive` since the pool was read; see received.ts. @param listing what `readPool` answers now */
  async notice(listing: readonly Row[]): Promise<void> {
    await notice(this.#pool, listing);
  }

  /** Snapshots of a containerd that are in use, the oldest first. */
  inUse(owner: string): readonly Node[] {
    return inUse(this.#pool, owner);
  }

  /** Takes those out of use that are older than its database, in seconds since 1970; see lost.ts. */
  async lose(owner: string, before: number): Promise<readonly Node[]> {
    return lose(this.#pool, owner, before);
  }

  /** Puts them back into use; see lost.ts. */
  async find(owner: string, known: ReadonlySet<string>): Promise<readonly Node[]> {
    return find(this.#pool, owner, known);
  }

  /** Whether a database is older than the one for which they were taken out of use; see lost.ts. */
  async isFormer(owner: string, born: number): Promise<boolean> {
    return isFormer(this.#pool, owner, born);
  }

  /** Names of a containerd's snapshots that are out of use because its database was lost. */
  lostNames(owner: string): ReadonlySet<string> {
    const lost = [...this.#pool.index.nodes()].filter((node) => node.lost && node.snapshot?.owner === owner);
    return new Set(lost.map(({ snapshot }) => snapshot?.name ?? ''));
  }

  /** Destroys foreign and adopted datasets by name; see drop.ts. */
  async drop(
    datasets: readonly string[],
    options: { dryRun: boolean; checkpointsOf: (dataset: string) => readonly string[] },
    owner?: string,
  ): Promise<Dropped> {
    return drop(this.#pool, this.#ownerOr(owner), datasets, options);
  }

  /** Takes over foreign datasets; see adopt.ts. */
  async adopt(datasets: readonly string[], options: { dryRun: boolean }, owner?: string): Promise<Adoption> {
    return adopt(this.#pool, this.#ownerOr(owner), datasets, options);
  }
}
