import type { CheckpointRecord } from './record.ts';
import type { Stage } from './staging.ts';

interface Cached {
  readonly stage: Stage;
  readonly record: CheckpointRecord;
  readonly bytes: number;
  users: number;
  /** No longer wanted: goes with its last user. */
  dropped: boolean;
}

/** An image that is being read, and cannot go before `release`. */
export interface Held {
  readonly imageDir: string;
  readonly record: CheckpointRecord;
  release(): Promise<void>;
}

/**
 * The images of the latest checkpoints, as CRIU wrote them to the tmpfs, so that a restore of what was just
 * checkpointed needs no ZFS command and reads memory at the speed of memory. What is here is in the pool too: it can
 * go at any time, and does when the room is needed or stasisd restarts.
 *
 * Invariants: `#bytes` is the sum over `#images`; Map order is the order of last use.
 */
export class ImageCache {
  readonly #limit: number;
  readonly #images = new Map<string, Cached>();
  #bytes = 0;

  /** @param limit bytes; 0 keeps nothing */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Takes a stage over, or removes it where it does not fit. */
  async keep(id: string, image: { stage: Stage; record: CheckpointRecord; bytes: number }): Promise<void> {
    if (image.bytes > this.#limit) {
      await image.stage.remove();
      return;
    }
    this.#images.set(id, { ...image, users: 0, dropped: false });
    this.#bytes += image.bytes;
    for (const [other, cached] of this.#images) {
      if (this.#bytes <= this.#limit) break;
      if (other !== id && cached.users === 0) await this.drop(other);
    }
  }

  hold(id: string): Held | undefined {
    const cached = this.#images.get(id);
    if (cached === undefined) return undefined;
    this.#images.delete(id);
    this.#images.set(id, cached); // the most recently used
    cached.users++;
    let held = true;
    return {
      imageDir: cached.stage.imageDir,
      record: cached.record,
      release: async () => {
        if (!held) return;
        held = false;
        cached.users--;
        if (cached.dropped && cached.users === 0) await cached.stage.remove();
      },
    };
  }

  async drop(id: string): Promise<void> {
    const cached = this.#images.get(id);
    if (cached === undefined) return;
    this.#images.delete(id);
    this.#bytes -= cached.bytes;
    cached.dropped = true;
    if (cached.users === 0) await cached.stage.remove();
  }
}
