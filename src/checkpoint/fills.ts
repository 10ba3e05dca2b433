import { setTimeout as sleep } from 'node:timers/promises';
import {
  fillEnded,
  listFills,
  readNote,
  readState,
  removeFill,
  writeNote,
  type FillNote,
  type FillState,
} from '../pages/fill-files.ts';
import type { CheckpointEntry } from './entry.ts';
import { FailedPrecondition } from '../errors.ts';
import type { Report } from './host.ts';
import type { OpenMemory } from './memory-store.ts';

/** How often the shims' files are looked at while any memory is coming in. */
const POLL_MS = 200;

/** The same where there are only those left whose memory will not come. */
const IDLE_MS = 5_000;

/** A lazy restore that is being made. */
export interface Noted {
  /** CRIU's work folder, by which the shim knows that the restore is to be lazy. */
  readonly folder: string;
  /** The task runs: from now on the image is kept until its memory is all there. */
  begun(): void;
  /** There is no task. */
  abandon(): void;
}

interface Fill {
  readonly folder: string;
  readonly note: FillNote;
  /** Lets the image go. */
  readonly release: () => Promise<void>;
  released: boolean;
}

export interface FillsOptions {
  readonly runDir: string;
  /** Work that nobody waits for. */
  readonly later: (what: string, work: Promise<unknown>) => void;
}

/**
 * Containers whose memory is still being brought in. The page servers are their shims', and outlive stasisd; what is kept
 * here is what they read from, and what users are told. It all stands in files (src/pages/fill-files.ts), so that the next
 * stasisd goes on with it.
 */
export class Fills {
  readonly #options: FillsOptions;
  readonly #fills = new Map<string, Fill>();
  #timer: NodeJS.Timeout | undefined;

  constructor(options: FillsOptions) {
    this.#options = options;
  }

  /**
   * Takes up what an earlier stasisd left.
   * @param release lets a clone go that is read from
   * @returns the clones that are
   */
  load(release: (clone: string) => Promise<void>): Set<string> {
    const clones = new Map<string, number>();
    for (const folder of listFills(this.#options.runDir)) {
      const note = readNote(folder);
      if (note === undefined) {
        removeFill(folder);
        continue;
      }
      const { clone } = note;
      clones.set(clone, (clones.get(clone) ?? 0) + 1);
      const releaseOne = async (): Promise<void> => {
        const left = (clones.get(clone) ?? 1) - 1;
        clones.set(clone, left);
        if (left === 0 && clone !== '') await release(clone);
      };
      this.#fills.set(folder, { folder, note, release: releaseOne, released: false });
    }
    this.#schedule();
    return new Set([...clones.keys()].filter((clone) => clone !== ''));
  }

  /** Before the task is created. */
  note(namespace: string, container: string, entry: CheckpointEntry, memory: OpenMemory): Noted {
    const { id, name } = entry;
    const note: FillNote = {
      namespace,
      container,
      checkpoint: { id, container: entry.container, name },
      clone: memory.clone,
      totalBytes: entry.memoryBytes,
    };
    const folder = writeNote(this.#options.runDir, note);
    memory.hold();
    const fill: Fill = { folder, note, release: () => memory.close(), released: false };
    return {
      folder,
      begun: () => {
        this.#fills.set(folder, fill);
        this.#schedule();
      },
      abandon: () => {
        if (this.#fills.has(folder) || fill.released) return;
        removeFill(folder);
        this.#release(fill);
      },
    };
  }

  /** How far a container's memory is; undefined where it is all there, or was from the beginning. */
  of(namespace: string, container: string): { note: FillNote; state: FillState | undefined } | undefined {
    for (const { folder, note, released } of this.#fills.values()) {
      if (note.namespace !== namespace || note.container !== container) continue;
      const state = readState(folder);
      if (state === undefined && released) continue; // its task has just been deleted
      if (state?.kind !== 'complete') return { note, state };
    }
    return undefined;
  }

  /** Containers that still read from a checkpoint. */
  readersOf(checkpointId: string): string[] {
    return [...this.#fills.values()]
      .filter(({ note, released }) => note.checkpoint.id === checkpointId && !released)
      .map(({ note }) => note.container);
  }

  /**
   * Waits until a container's memory is all there.
   * @throws FailedPrecondition where what is missing will not come; the signal's reason
   */
  async whenFilled(namespace: string, container: string, report: Report, signal: AbortSignal): Promise<void> {
    for (let fill = this.of(namespace, container); fill !== undefined; fill = this.of(namespace, container)) {
      const { note, state } = fill;
      if (state?.kind === 'failed') throw memoryLost(container, state.why);
      const done = Math.min(state?.doneBytes ?? 0, note.totalBytes);
      report.phase('waiting until its memory is all there', done, note.totalBytes);
      await sleep(POLL_MS, undefined, { signal }).catch(() => signal.throwIfAborted());
      this.#look();
    }
  }

  /** Of a container whose task is gone. */
  forget(namespace: string, container: string): void {
    for (const [folder, fill] of this.#fills) {
      if (fill.note.namespace !== namespace || fill.note.container !== container) continue;
      this.#release(fill);
      this.#fills.delete(folder);
      removeFill(folder);
    }
  }

  close(): void {
    clearTimeout(this.#timer);
  }

  #schedule(): void {
    if (this.#timer !== undefined || this.#fills.size === 0) return;
    const idle = [...this.#fills.values()].every(({ released }) => released);
    this.#timer = setTimeout(
      () => {
        this.#timer = undefined;
        this.#look();
        this.#schedule();
      },
      idle ? IDLE_MS : POLL_MS,
    );
  }

  #look(): void {
    for (const fill of this.#fills.values()) {
      const end = fillEnded(fill.folder);
      if (end === undefined) continue;
      this.#release(fill);
      if (end === 'failed') continue; // its folder goes with the task, and until then tells why
      this.#fills.delete(fill.folder);
      removeFill(fill.folder);
    }
  }

  #release(fill: Fill): void {
    if (fill.released) return;
    fill.released = true;
    this.#options.later('close a memory image', fill.release());
  }
}

function memoryLost(container: string, why: string): FailedPrecondition {
  return new FailedPrecondition(`container ${container} is without its memory: ${why}`, {
    subject: container,
    reason: 'memory-lost',
    remedy: `go back to a checkpoint: stasis restore ${container} --eager`,
  });
}
