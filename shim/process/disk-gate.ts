import {
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  openSync,
  renameSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { makeFifo } from '../../src/sys/fifo.ts';

/** More than a runtime calls CRIU in one restore. */
const CALLS = 8;

/** Of rm(), where the folder is not empty after all. */
const patience = { maxRetries: 10, retryDelay: 10 } as const;

/**
 * Lets an OCI runtime begin a restore before the container's disk is there: runc spends 20 ms on starting itself and on
 * asking CRIU for its version, before it looks at the root file system. It finds a `criu` that waits (criu-when-ready).
 */
export class DiskGate implements AsyncDisposable {
  /** To be the first folder on the runtime's PATH, and its STASIS_DISK_GATE. */
  readonly folder: string;
  readonly #fifo: number;
  readonly #criu: string | undefined;
  #isOpen = true;

  /**
   * @param folder is made, and taken away in the end
   * @param criu the program itself, which is called without a detour once the disk is there; undefined: by its name
   */
  constructor(folder: string, criu: string | undefined) {
    this.folder = folder;
    this.#criu = criu;
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    symlinkSync(join(import.meta.dirname, 'criu-when-ready'), join(folder, 'criu'));
    const path = join(folder, 'wait');
    makeFifo(path, 0o600);
    // Open at both ends, so that what is written stays until it is read; closed, it ends those who wait.
    this.#fifo = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  }

  /** The disk is there. */
  open(): void {
    this.#stepAside();
    writeFileSync(join(this.folder, 'ready'), '', { mode: 0o600 });
    writeSync(this.#fifo, '\n'.repeat(CALLS));
  }

  /**
   * Puts CRIU itself in the place of what waits. The shell opens its script by the path that was called, which must be the script
   * until then: so only while the first call waits for us, and before it is let go and the next can come.
   */
  #stepAside(): void {
    if (this.#criu === undefined || !existsSync(join(this.folder, 'asked'))) return;
    symlinkSync(this.#criu, join(this.folder, 'itself'));
    renameSync(join(this.folder, 'itself'), join(this.folder, 'criu'));
  }

  /** What waits here ends. */
  close(): void {
    if (this.#isOpen) closeSync(this.#fifo);
    this.#isOpen = false;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
    // A call that has just come writes that down in there.
    await rm(this.folder, { recursive: true, force: true, ...patience });
  }
}
