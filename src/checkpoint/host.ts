import type { Config } from '../config/config.ts';
import type { Containerd } from '../containerd/client.ts';
import type { Logger } from '../log.ts';
import type { SnapshotStore } from '../../snapshotter/store.ts';
import type { CriuFinder } from '../criu/find.ts';
import type { RuntimeBinaries } from '../oci/binary.ts';
import type { Zfs } from '../zfs/zfs.ts';
import type { Catalog } from './catalog.ts';
import type { Fills } from './fills.ts';
import type { ImageCache } from './image-cache.ts';
import type { KeyedMutex } from './locks.ts';
import type { MemoryStore } from './memory-store.ts';
import type { Standstill } from './still/standstill.ts';
import type { Pending } from './pending.ts';
import type { RewindNotes } from './rewind/notes.ts';
import type { Storing } from './storing.ts';
import type { UnfinishedSets } from './unfinished-sets.ts';

/** Name under which containerd knows our snapshotter. */
export const snapshotterName = 'stasis';

/** Runtime type under which containerd starts our shim. */
export const runtimeName = 'io.containerd.stasis.v2';

/** What the operations on checkpoints work with: one host's pool, containerd and run-time state. */
export interface Host {
  readonly config: Config;
  /** Root dataset, such as `tank/stasis`. */
  readonly root: string;
  readonly zfs: Zfs;
  readonly store: SnapshotStore;
  readonly catalog: Catalog;
  readonly memory: MemoryStore;
  readonly unfinishedSets: UnfinishedSets;
  readonly storing: Storing;
  readonly images: ImageCache;
  readonly standstill: Standstill;
  readonly containerd: Containerd;
  readonly pending: Pending;
  readonly rewinds: RewindNotes;
  /** Containers whose memory is still being brought in. */
  readonly fills: Fills;
  readonly criu: CriuFinder;
  readonly runtimes: RuntimeBinaries;
  /** By `<namespace>/<container>`: one change of a container at a time. */
  readonly locks: KeyedMutex;
  readonly log: Logger;
  /** Folder on a tmpfs in which memory is dumped while the container stands still; 0700. */
  readonly staging: string;
  /**
   * Learns which containerd this is, once: snapshots belong to it by its UUID.
   * @throws Unavailable where containerd does not answer
   */
  identify(): Promise<string>;
  /** Work that the caller need not wait for; its failure is logged, and it is waited for at shutdown. */
  readonly later: (what: string, work: Promise<unknown>) => void;
}

/** What a long call tells its caller meanwhile. */
export interface Report {
  phase(phase: string, doneBytes?: number, totalBytes?: number): void;
  warn(message: string): void;
}

export function lockKey(namespace: string, container: string): string {
  return `${namespace}/${container}`;
}
