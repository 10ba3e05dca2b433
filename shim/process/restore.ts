import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { defaultCriuOptions } from '../../src/checkpoint/stock.ts';
import { cgroupRoot } from '../../src/criu/cgroup-root.ts';
import { makeCgroupYard } from '../../src/criu/cgroup-yard.ts';
import { describeFailure, lastError } from '../../src/criu/log.ts';
import { remakeTmpfs, type RemadeTmpfs } from '../../src/criu/tmpfs.ts';
import { isOciError, OciError } from '../../src/oci/error.ts';
import type { OciRuntime, RestoreOptions } from '../../src/oci/types.ts';
import { makeFolder } from '../../src/sys/make-folder.ts';
import { onDisk } from '../../src/sys/thread-pool.ts';
import { editConfig, readConfig } from '../container/config-file.ts';
import { unmountBelow } from '../container/rootfs.ts';
import { DiskGate } from './disk-gate.ts';
import { withLoopback } from './loopback.ts';

/** Where the mounts stand that a restore hands to CRIU, while it works. */
export function criuFolder(bundle: string): string {
  return join(bundle, 'criu');
}

type Rest = Omit<RestoreOptions, keyof Options | 'detach' | 'noSubreaper'>;
type Options = Pick<RestoreOptions, 'id' | 'bundle' | 'imageDir' | 'workDir'>;

/** An OCI runtime that is at work, and will wait at the gate. */
interface Begun {
  readonly gate: DiskGate;
  readonly end: AbortController;
  readonly restored: Promise<void>;
}

/** A restore with all ready that an image itself leaves to us. Its mounts stay until it is disposed of. */
export class PreparedRestore implements AsyncDisposable {
  readonly #runtime: OciRuntime;
  readonly #options: Options;
  readonly #tmpfs: RemadeTmpfs;
  #begun: Begun | undefined;

  private constructor(runtime: OciRuntime, options: Options, tmpfs: RemadeTmpfs) {
    this.#runtime = runtime;
    this.#options = options;
    this.#tmpfs = tmpfs;
  }

  /** On failure nothing is mounted. */
  static async prepare(runtime: OciRuntime, options: Options): Promise<PreparedRestore> {
    const { imageDir, workDir, bundle } = options;
    // Its client may have said where.
    await onDisk(() => makeFolder(workDir, 0o711));
    // What is in the bundle on this thread, as that is on a tmpfs: a client waits.
    mkdirSync(criuFolder(bundle), { recursive: true, mode: 0o700 });
    const tmpfs = await remakeTmpfs(imageDir, criuFolder(bundle));
    try {
      const root = cgroupRoot(readConfig(bundle).linux?.cgroupsPath);
      const lines = [...tmpfs.lines, ...(await makeCgroupYard(yardIn(bundle))), ...root];
      writeFileSync(configIn(bundle), `${lines.join('\n')}\n`, { mode: 0o600 });
      // crun has CRIU restore the interface with the namespace.
      if (runtime.name === 'runc') editConfig(bundle, withLoopback);
    } catch (error) {
      await tmpfs[Symbol.asyncDispose]();
      throw error;
    }
    return new PreparedRestore(runtime, options, tmpfs);
  }

  /**
   * Starts the OCI runtime at once, where it does not look at the root file system until CRIU has answered it: that waits for
   * `run`. Nothing of the container is restored before.
   */
  begin(rest: Rest): void {
    if (!this.#runtime.asksCriuFirst) return;
    const gate = new DiskGate(join(criuFolder(this.#options.bundle), 'gate'), this.#runtime.criu());
    const end = new AbortController();
    const restored = this.#restore({ ...rest, diskGate: gate.folder, signal: end.signal });
    restored.catch(() => undefined); // run tells of it
    this.#begun = { gate, end, restored };
  }

  /**
   * Has the OCI runtime restore the container.
   * @param disk brings its root file system, where that is not there yet
   */
  async run(rest: Rest, disk?: () => Promise<unknown>): Promise<void> {
    const begun = this.#begun;
    if (begun === undefined) {
      await disk?.();
      return this.#restore(rest);
    }
    this.#begun = undefined;
    await using gate = begun.gate;
    const ready = (disk?.() ?? Promise.resolve()).then(
      () => gate.open(),
      (error: unknown) => {
        begun.end.abort();
        throw error;
      },
    );
    const [disked, restored] = await Promise.allSettled([ready, begun.restored]);
    for (const result of [disked, restored]) if (result.status === 'rejected') throw result.reason;
  }

  /** Ends a runtime that was begun and is not to go on. */
  async #giveUp(): Promise<void> {
    const begun = this.#begun;
    if (begun === undefined) return;
    this.#begun = undefined;
    begun.end.abort();
    begun.gate.close();
    await begun.restored.catch(() => undefined);
    await begun.gate[Symbol.asyncDispose]();
    // It has made a folder for the container by then, in which a later one of the same name would find a stranger.
    await this.#runtime.delete(this.#options.id, { force: true }).catch(() => undefined);
  }

  async #restore(rest: Rest): Promise<void> {
    const criuConfig = configIn(this.#options.bundle);
    try {
      await this.#runtime.restore({
        ...this.#options,
        ...rest,
        ...defaultCriuOptions,
        criuConfig,
        detach: true,
        noSubreaper: true,
      });
    } catch (error) {
      throw await withReason(error, this.#options);
    }
  }

  /** Takes all away that it can also where one of it fails: with any of the mounts, containerd could not remove the bundle. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.#giveUp();
    } finally {
      await this.#tmpfs[Symbol.asyncDispose]();
      // An image of a host with other hierarchies has CRIU mount its own there.
      await unmountBelow(yardIn(this.#options.bundle));
    }
  }
}

function configIn(bundle: string): string {
  return join(criuFolder(bundle), 'criu.conf');
}

function yardIn(bundle: string): string {
  return join(criuFolder(bundle), 'cgroups');
}

/** The runtime's words, and CRIU's own: the former only name CRIU's log, and that goes with the bundle. */
async function withReason(
  error: unknown,
  { id, workDir }: Pick<RestoreOptions, 'id' | 'workDir'>,
): Promise<unknown> {
  if (!isOciError(error, 'criu')) return error;
  const failure = await lastError(join(workDir, 'restore.log'));
  if (failure === undefined) return error;
  return new OciError('criu', 'restore', {
    subject: id,
    said: `${error.said}: ${describeFailure(failure)}`,
    exitCode: error.exitCode,
  });
}
