import { type Fingerprint, fingerprintOf, hasRestedSince, sameFingerprint } from './fingerprint.ts';

/** A paused container as it was right after its last checkpoint. */
export interface Still {
  /** Id of the checkpoint that holds it, see `contentOf`: others may be further names of that. */
  readonly content: string;
  readonly pid: number;
  /** What containerd had recorded of it, in whatever form can be compared. */
  readonly record: string;
  readonly fingerprint: Fingerprint;
}

/**
 * Paused containers that are what their last checkpoint holds, as long as nothing has changed since. Kept in memory alone:
 * after a restart of stasisd nothing is known, and the next checkpoint is a dump.
 */
export class Standstill {
  readonly #by = new Map<string, Still>();

  /**
   * Notes a container that was paused before its dump and still is.
   * @param cpuNs its CPU time at the end of the dump: where it has used more by now, it has run since, and nothing is noted
   */
  async note(key: string, still: Omit<Still, 'fingerprint'>, cpuNs: bigint): Promise<void> {
    this.#by.delete(key);
    if (cpuNs === 0n) return;
    const fingerprint = await fingerprintOf(still.pid);
    if (fingerprint?.cpuNs === cpuNs) this.#by.set(key, { ...still, fingerprint });
  }

  /**
   * What was noted, where a glance does not tell that it has run since: it is paused, and has used no CPU time. Only `find` says
   * that nothing has changed.
   */
  async glance(key: string, pid: number): Promise<Still | undefined> {
    const still = this.#by.get(key);
    return still?.pid === pid && (await hasRestedSince(pid, still.fingerprint)) ? still : undefined;
  }

  /** What was noted, if nothing of it has changed; else it is forgotten. */
  async find(key: string, now: Pick<Still, 'pid' | 'record'>): Promise<Still | undefined> {
    const still = this.#by.get(key);
    if (still === undefined) return undefined;
    if (still.pid === now.pid && still.record === now.record) {
      if (sameFingerprint(await fingerprintOf(still.pid), still.fingerprint)) return still;
    }
    this.#by.delete(key);
    return undefined;
  }

  forget(key: string): void {
    this.#by.delete(key);
  }
}
