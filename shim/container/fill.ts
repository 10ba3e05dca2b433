import { messageOf } from '../../src/errors.ts';
import type { Logger } from '../../src/log.ts';
import { HeldFaults } from '../../src/pages/held-faults.ts';
import { isFill, readNote, removeFill, writeState, type FillState } from '../../src/pages/fill-files.ts';
import type { PageServer, PageServers } from '../../src/pages/page-server.ts';
import { edgesOfMemory, touchMemory } from '../../src/sys/process-memory.ts';
import { endProcessesAt } from '../../src/sys/process-tree.ts';
import { startTimeOf } from '../../src/sys/process.ts';
import type { Accounting } from './accounting.ts';
import type { ShimContext } from './context.ts';

/** How often the page server's descriptors are looked at: when tasks are being restored, or one of several may be done … */
const QUICK_MS = 5;
/** … and when there is but one, whose end is the server's. */
const SLOW_MS = 50;
/** How often it is looked whether pages come. */
const WATCH_MS = 1000;
/** Without a page for so long it is reported. */
const STALLED_MS = 10_000;

/** The fill of a restore that is to be lazy; undefined for any other. */
export function openFill(
  { config, pageServers: servers }: ShimContext,
  { imageDir, workDir: folder }: { readonly imageDir: string; readonly workDir: string },
  { accounting, bundle }: { readonly accounting: Accounting; readonly bundle: string },
  log: Logger,
): Fill | undefined {
  if (!isFill(folder)) return undefined;
  const timeoutMs = config.checkpoint.timeout * 1000;
  const end = (): Promise<void> => accounting.end();
  // The runtime works there, and CRIU and the tasks are its children.
  const breakOff = (): Promise<void> => endProcessesAt(bundle);
  const pids = (): Promise<number[]> => accounting.pids();
  return new Fill({ folder, imageDir, servers, log, timeoutMs, pids, end, breakOff });
}

/** What a container does with it, whoever has started it. */
export type ContainerFill = Pick<
  Fill,
  'folder' | 'ended' | 'lost' | 'isMissing' | 'start' | 'restored' | 'stop' | 'remove'
>;

export interface FillOptions {
  /** See fill-files.ts. */
  readonly folder: string;
  readonly imageDir: string;
  readonly servers: PageServers;
  readonly log: Logger;
  /** Milliseconds without a page after which the memory counts as lost. */
  readonly timeoutMs: number;
  /** The container's processes. */
  readonly pids: () => Promise<number[]>;
  /** Ends all of the container: what is missing of its memory will not come. */
  readonly end: () => Promise<void>;
  /** Ends a restore that is under way, with all that it has restored. */
  readonly breakOff: () => Promise<void>;
}

/**
 * A restored container's memory, while it comes in.
 *
 * INVARIANTS
 * - No task runs on with zeros in place of its memory: when the page server ends before it is done, the faults stay held
 *   until all of the container has been killed.
 * - `ended` resolves in any case: when the memory is there, when it is lost, and when the container goes before.
 */
export class Fill {
  readonly ended: Promise<void>;
  readonly #options: FillOptions;
  #server: PageServer | undefined;
  #faults: HeldFaults | undefined;
  #restoring = true;
  #stopped = false;
  #over = false;
  #nudging = false;
  /** More than that no server has to read, unless processes fork meanwhile. */
  readonly #totalBytes: number;
  /** Why what is missing will not come. */
  #lost: string | undefined;
  #follow: NodeJS.Timeout | undefined;
  #watch: NodeJS.Timeout | undefined;
  #last = { bytes: 0, at: performance.now(), wall: 0 };
  #resolve!: () => void;

  constructor(options: FillOptions) {
    this.#options = options;
    this.#totalBytes = readNote(options.folder)?.totalBytes ?? Infinity;
    this.ended = new Promise((resolve) => (this.#resolve = resolve));
  }

  /** See fill-files.ts. */
  get folder(): string {
    return this.#options.folder;
  }

  /** Why what is missing will not come; undefined while it may. */
  get lost(): string | undefined {
    return this.#lost;
  }

  /** Whether memory is missing, now or for good. */
  get isMissing(): boolean {
    return !this.#over || this.#lost !== undefined;
  }

  /** Starts the page server; the restore can begin. @throws StasisError where there is none to be had */
  async start(): Promise<void> {
    const { folder, imageDir, servers } = this.#options;
    let server: PageServer;
    try {
      server = await servers.start({ imageDir, workDir: folder });
    } catch (error) {
      this.#finish();
      throw error;
    }
    if (this.#stopped) {
      // Its container went meanwhile.
      server.stop();
      await server.ended;
      return;
    }
    this.#server = server;
    this.#faults = new HeldFaults(this.#server.pid);
    this.#save('filling');
    void this.#server.ended.then(({ complete, why }) => this.#serverEnded(complete, why));
    this.#followFaults();
  }

  /** The tasks run. */
  restored(): void {
    this.#restoring = false;
    if (this.#over) return;
    if (this.#lost !== undefined) {
      void this.#lose(this.#lost);
      return;
    }
    this.#faults?.update();
    this.#last = { ...this.#last, at: performance.now() };
    this.#watchPages();
  }

  /** The container is ending, or was never restored: nobody needs what is missing. */
  stop(): void {
    this.#stopped = true;
    this.#server?.stop();
    if (this.#server !== undefined && this.#lost === undefined) return; // its end follows
    this.#faults?.close();
    this.#finish();
  }

  /** Takes away what others may still read of it. The container is gone. */
  async remove(): Promise<void> {
    this.stop();
    await this.ended;
    removeFill(this.#options.folder);
  }

  #followFaults(): void {
    const pause = this.#restoring || (this.#faults?.size ?? 0) > 1 ? QUICK_MS : SLOW_MS;
    this.#follow = setTimeout(() => {
      this.#faults?.update();
      if (this.#nudging) this.#faults?.askAgain();
      this.#followFaults();
    }, pause);
  }

  /** CRIU's server says nothing when a read does not return. */
  #watchPages(): void {
    this.#watch = setTimeout(() => {
      const bytes = this.#server?.readBytes() ?? 0;
      const now = performance.now();
      if (bytes !== this.#last.bytes) this.#last = { bytes, at: now, wall: 0 };
      const quiet = now - this.#last.at;
      if (quiet >= STALLED_MS && this.#last.wall === 0) {
        this.#last.wall = Math.round((Date.now() - quiet) / 1000);
        this.#options.log.warn('no page of a restored container has come for a while', {
          ...this.#subject(),
          seconds: Math.round(quiet / 1000),
        });
      }
      this.#save('filling');
      if (bytes > this.#totalBytes) this.#nudge();
      if (quiet >= this.#options.timeoutMs) {
        void this.#lose(`no page has come for ${Math.round(quiet / 1000)} s`);
      } else {
        this.#watchPages();
      }
    }, WATCH_MS);
  }

  /**
   * Helps CRIU's server on where it turns in circles: what it copies at once has to lie in one mapping, and where a process
   * has divided one since (mprotect), it reads and fails to copy the same pages again and again. It does bring in each page that
   * is asked for, and copies no further than to such a page at once: so the edges of all mappings are asked for.
   *
   * As long as it lasts who waits for a page asks again and again: see HeldFaults.
   */
  #nudge(): void {
    if (this.#nudging) return;
    this.#nudging = true;
    const touch = async (): Promise<void> => {
      for (const pid of await this.#options.pids()) await touchMemory(pid, edgesOfMemory(pid));
    };
    touch()
      .catch((error: unknown) => {
        this.#options.log.debug('the edges of mappings could not be read', { error: messageOf(error) });
      })
      .finally(() => (this.#nudging = false));
  }

  #serverEnded(complete: boolean, why: string): void {
    if (this.#over || this.#lost !== undefined) return;
    if (complete || this.#stopped) {
      this.#faults?.close();
      this.#save('complete');
      this.#finish();
    } else {
      this.#lost = `the page server has ended: ${why}`;
      if (this.#restoring)
        void this.#options.breakOff(); // it waits for a page
      else void this.#lose(this.#lost);
    }
  }

  async #lose(why: string): Promise<void> {
    if (this.#over) return;
    this.#lost = why;
    this.#finish();
    this.#save('failed', why);
    this.#options.log.error('a restored container is ended, as its memory cannot be brought in', {
      ...this.#subject(),
      why,
    });
    try {
      await this.#options.end();
    } catch (error) {
      this.#options.log.error('a container without its memory could not be ended', {
        ...this.#subject(),
        error: messageOf(error),
      });
      return; // its faults stay held
    }
    this.#faults?.close();
    this.#server?.stop();
  }

  #finish(): void {
    this.#over = true;
    clearTimeout(this.#follow);
    clearTimeout(this.#watch);
    this.#resolve();
  }

  #subject(): { container: string; checkpoint: string } {
    const note = readNote(this.#options.folder);
    return {
      container: note?.container ?? '',
      checkpoint: note === undefined ? '' : `${note.checkpoint.container}@${note.checkpoint.name}`,
    };
  }

  #save(kind: FillState['kind'], why = ''): void {
    const pid = this.#server?.pid ?? 0;
    const { folder } = this.#options;
    const doneBytes = Math.max(this.#last.bytes, this.#server?.readBytes() ?? 0);
    const stalledSince = this.#last.wall;
    writeState(folder, { kind, pid, startTime: startTimeOf(pid), doneBytes, stalledSince, why });
  }
}
