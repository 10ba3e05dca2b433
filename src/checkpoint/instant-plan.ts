// What a frozen instant is asked for, what it is made with, and what comes of it.
import type { CriuFinder } from '../criu/find.ts';
import type { Logger } from '../log.ts';
import type { CriuOptions, OciRuntime } from '../oci/types.ts';
import type { Cgroup } from '../sys/cgroup.ts';
import type { Freezer } from '../sys/cgroup-freezer.ts';
import type { Zfs } from '../zfs/zfs.ts';

/** The container, as the shim knows it. */
export interface InstantTarget {
  /** Id by which the OCI runtime knows it. */
  readonly id: string;
  /** Its init process, as the host numbers it. */
  readonly pid: number;
  readonly cgroup: Cgroup;
  readonly runtime: Pick<OciRuntime, 'checkpoint' | 'preDump'>;
  /** Whether some of its memory has still to be brought in: a dump would leave that out. */
  readonly missing?: () => boolean;
}

export interface MemoryPlan {
  /** Empty folder, or one that does not exist yet. */
  readonly imageDir: string;
  /** Whether that folder was made by the caller, who takes it away when it gives up: then it must not come back. */
  readonly isGiven?: boolean;
  /** Where CRIU writes its log; must exist. */
  readonly workDir: string;
  readonly criu: CriuOptions;
  /**
   * Image folder of the previous dump, relative to `imageDir`. Where CRIU fails with it, it dumps again without it; see
   * `InstantResult.parentError`.
   */
  readonly parentPath?: string;
  /** Fail when memory cannot be dumped; otherwise the disk alone is kept. Without a disk it is always required. */
  readonly required: boolean;
  /** The image is for our own restore alone, which brings back what src/criu/tmpfs.ts leaves out. Else it is plain CRIU's. */
  readonly ownRestore?: boolean;
}

export interface DiskPlan {
  /** `dataset@name` */
  readonly snapshot: string;
  readonly properties: Readonly<Record<string, string>>;
  /** A folder on the file system to be snapshotted. */
  readonly syncPath: string;
}

export interface InstantPlan {
  readonly memory?: MemoryPlan;
  readonly disk?: DiskPlan;
  /** End the container instead of letting it run on. */
  readonly exit: boolean;
  /** Milliseconds that the dump may take. */
  readonly timeoutMs: number;
}

/**
 * Where one of several containers waits for the others, so that all stand still at one instant. Each resolves when all of
 * them are there, and rejects where one of them never will be: then the instant is undone.
 */
export interface Gates {
  /** No exec session is in the way, and none can begin; it still runs. Only where there is a policy for them. */
  ready(): Promise<void>;
  /** Frozen. */
  still(): Promise<void>;
  /** On the disk is what there is to be; resolves when that is snapshotted, by whoever holds the gates. */
  synced(): Promise<void>;
  /** Nothing is left to do but to let it run. */
  dumped(): Promise<void>;
}

/** What the instant is made with; tests hand in their own. */
export interface InstantTools {
  readonly zfs: Pick<Zfs, 'snapshot' | 'destroyIdempotent'>;
  readonly syncfs?: (path: string) => Promise<void>;
  /** Knows which CRIU the runtime will run; without it no option is used that an old one lacks. */
  readonly criu?: Pick<CriuFinder, 'get'>;
  readonly freezer?: Freezer;
  readonly pids?: () => Promise<number[]>;
  readonly kill?: () => Promise<void>;
  readonly isDying?: (pid: number) => boolean;
  /** Whether the disk may be snapshotted while CRIU is at work, see `mayOverlap`. */
  readonly overlap?: () => Promise<boolean>;
  readonly log?: Logger;
  /** For one of several containers: then the disk is not snapshotted here, and `zfs` is not called. */
  readonly gates?: Gates;
}

/**
 * Nanoseconds of each phase. `frozen` runs from the first stopped task to the thaw; it is less than the sum, as the disk
 * is snapshotted during the dump.
 */
export interface InstantTimes {
  freeze: bigint;
  dump: bigint;
  sync: bigint;
  snapshot: bigint;
  frozen: bigint;
}

export interface InstantResult {
  /** Whether a whole image stands in `imageDir`. */
  readonly memory: boolean;
  /** CRIU's own reason when memory was wanted and could not be had. */
  readonly memoryError: string;
  /** Whether the container was paused before; then it still is, unless it was to exit. */
  readonly wasPaused: boolean;
  readonly exited: boolean;
  readonly imageBytes: number;
  /** CRIU's reason where the image does not refer to the previous dump although it was to; else empty. */
  readonly parentError: string;
  /** CPU time in nanoseconds that a paused container has used by the end of the instant; 0 where it ran, or runs again. */
  readonly cpuNs: bigint;
  readonly times: InstantTimes;
}
