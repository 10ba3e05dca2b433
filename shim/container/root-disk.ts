import type { Config } from '../../src/config/config.ts';
import { messageOf } from '../../src/errors.ts';
import type { Logger } from '../../src/log.ts';
import type { Mount } from '../../src/sys/mount.ts';
import { markerOf, sourcesMade, withoutMarker } from '../../src/sys/mount-late.ts';
import { mountRootfs, removeMountPoints, unmountRootfs } from './rootfs.ts';
import { bringDiskBack, type ReturnedDisk } from './stock-disk.ts';

export interface RootDiskOptions {
  readonly config: Config;
  readonly namespace: string;
  readonly id: string;
  /** The mounts that the client gave. */
  readonly mounts: readonly Mount[];
  /** Folder that they go to. */
  readonly rootfs: string;
  readonly log: Logger;
}

/** A container's root file system. For a restore it is first brought back to the instant of the memory. */
export class RootDisk {
  readonly #options: RootDiskOptions;
  #mounts: readonly Mount[];
  #returned: ReturnedDisk | undefined;
  #late = false;

  constructor(options: RootDiskOptions) {
    this.#options = options;
    this.#mounts = options.mounts.map(withoutMarker);
  }

  /** What is mounted, or will be. */
  get mounts(): readonly Mount[] {
    return this.#mounts;
  }

  /** @param imageDir memory that is to be restored; undefined for a usual start */
  async mount(imageDir: string | undefined): Promise<void> {
    const { config, namespace, id, rootfs } = this.#options;
    if (imageDir !== undefined) {
      this.#returned = await bringDiskBack(config, namespace, id, this.#mounts, imageDir);
      this.#mounts = this.#returned?.mounts ?? this.#mounts;
    }
    this.#late =
      imageDir !== undefined && this.#options.mounts.some((mount) => markerOf(mount) !== undefined);
    if (!this.#late) await mountRootfs(this.#mounts, rootfs);
  }

  /** Whether `mount` has left the mounting to `mountLate`. */
  get isLate(): boolean {
    return this.#late;
  }

  /** Mounts what is still being made, when it is there. @throws FailedPrecondition when it does not come */
  async mountLate(): Promise<void> {
    await sourcesMade(this.#options.mounts);
    await mountRootfs(this.#mounts, this.#options.rootfs);
    this.#late = false;
  }

  /** The restore succeeded, so the disk that was brought back is the container's from now on. */
  async keep(): Promise<void> {
    const returned = this.#returned;
    this.#returned = undefined;
    await returned?.keep().catch((error: unknown) => {
      this.#options.log.warn('stasisd could not be told that a restore succeeded', {
        error: messageOf(error),
      });
    });
  }

  /**
   * Takes the mounts away; a disk that was brought back and not kept goes back to what it was.
   * @param restored whether a runtime may have made its mount points before there was a disk
   */
  async unmount(restored: boolean): Promise<void> {
    try {
      await unmountRootfs(this.#options.rootfs);
      if (restored) await removeMountPoints(this.#options.rootfs, this.#mounts);
    } finally {
      this.#returned?.giveUp();
      this.#returned = undefined;
    }
  }
}
