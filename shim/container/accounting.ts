import { setTimeout as sleep } from 'node:timers/promises';
import { FailedPrecondition, NotFound } from '../../src/errors.ts';
import type { Any } from '../../src/proto/gen/google/protobuf/any.ts';
import { cgroupAt, cgroupPids, findCgroup, type Cgroup } from '../../src/sys/cgroup.ts';
import { freezerOf, type Freezer } from '../../src/sys/cgroup-freezer.ts';
import { watchOom, type OomWatch } from '../../src/sys/cgroup-oom.ts';
import { killCgroup } from '../../src/sys/cgroup-remove.ts';
import { ownProcesses } from '../../src/sys/own-processes.ts';
import { openStats, type CgroupStats } from '../../src/sys/cgroup-stats.ts';

/** How long the killed may take to be gone, and how often that is looked at. */
const END_MS = 10_000;
const END_POLL_MS = 10;

/** What a container's cgroup is asked and told. It is known once the first process exists. */
export class Accounting {
  #cgroup: Cgroup | undefined;
  #stats: CgroupStats | undefined;
  #oom: OomWatch | undefined;

  get cgroup(): Cgroup | undefined {
    return this.#cgroup;
  }

  /** Finds the cgroup through its process; a process that is gone already leaves it unknown. */
  async learn(pid: number, onOom: () => void): Promise<void> {
    this.#watch(await findCgroup(pid).catch(() => undefined), onOom);
  }

  /** The same for a cgroup whose process may be gone. @param path inside the hierarchy @param kills for want of memory that were reported */
  async learnAt(path: string, onOom: () => void, kills: bigint): Promise<void> {
    this.#watch(await cgroupAt(path).catch(() => undefined), onOom, kills);
  }

  #watch(cgroup: Cgroup | undefined, onOom: () => void, kills = 0n): void {
    this.#cgroup = cgroup;
    if (cgroup === undefined) return;
    this.#stats = openStats(cgroup);
    this.#oom = watchOom(cgroup, this.#stats, onOom, kills);
  }

  /** @throws NotFound where there is no cgroup */
  async stats(): Promise<Any> {
    if (this.#stats === undefined) throw new NotFound('cgroup does not exist');
    const { typeUrl, value } = await this.#stats.read();
    return { typeUrl, value: Buffer.from(value) };
  }

  /** How many kills for want of memory were reported. */
  get oomKills(): bigint {
    return this.#oom?.kills ?? 0n;
  }

  /** Reports kills for want of memory that nobody has noticed yet. */
  checkOom(): void {
    this.#oom?.check();
  }

  /** Reads the figures a last time, for questions after the cgroup is gone. */
  async remember(): Promise<void> {
    await this.#stats?.read().catch(() => undefined);
  }

  async pids(): Promise<number[]> {
    return this.#cgroup === undefined ? [] : cgroupPids(this.#cgroup);
  }

  /** Without what is in the cgroup alone, and somebody else's. @param init the container's first process */
  async ownPids(init: number): Promise<number[]> {
    return ownProcesses(await this.pids(), init);
  }

  async kill(): Promise<void> {
    if (this.#cgroup !== undefined) await killCgroup(this.#cgroup);
  }

  /** Kills until nobody is left. @throws FailedPrecondition where somebody does not die */
  async end(): Promise<void> {
    const deadline = performance.now() + END_MS;
    // Again and again, as one that was not killed yet may have forked meanwhile.
    for (;;) {
      await this.kill();
      if ((await this.pids()).length === 0) return;
      if (performance.now() >= deadline) throw new FailedPrecondition('its processes do not end');
      await sleep(END_POLL_MS);
    }
  }

  /** @throws FailedPrecondition where there is no cgroup or no freezer */
  freezer(): Freezer {
    if (this.#cgroup === undefined) throw new FailedPrecondition("the container's cgroup is not known");
    return freezerOf(this.#cgroup);
  }

  close(): void {
    this.#oom?.close();
    this.#stats?.close();
  }
}
