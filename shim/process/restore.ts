import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { defaultCriuOptions } from '../../src/checkpoint/stock.ts';
import { makeCgroupYard } from '../../src/criu/cgroup-yard.ts';
import { describeFailure, lastError } from '../../src/criu/log.ts';
import { remakeTmpfs, type RemadeTmpfs } from '../../src/criu/tmpfs.ts';
import { isOciError, OciError } from '../../src/oci/error.ts';
import type { OciRuntime, RestoreOptions } from '../../src/oci/types.ts';
import { editConfig } from '../container/config-file.ts';
import { unmountBelow } from '../container/rootfs.ts';
import { DiskGate } from './disk-gate.ts';
import { withLoopback } from './loopback.ts';

/** Where the mounts stand that a restore hands to CRIU, while it works. */
export function criuFolder(bundle: string): string {
  return join(bundle, 'criu');
}

type Rest = Omit<RestoreOptions, keyof Options | 'detach' | 'noSubreaper'>;
type Options = Pick<RestoreOptions, 'id' | 'bundle' | 'imageDir' | 'workDir'>;

/** A restore with all ready that an image itself leaves to us. Its mounts stay until it is disposed of. */
export class PreparedRestore implements AsyncDisposable {
  readonly #runtime: OciRuntime;
  readonly #options: Options;
  readonly #tmpfs: RemadeTmpfs;

  private constructor(runtime: OciRuntime, options: Options, tmpfs: RemadeTmpfs) {
    this.#runtime = runtime;
    this.#options = options;
    this.#tmpfs = tmpfs;
  }

  /** On failure nothing is mounted. */
  static async prepare(runtime: OciRuntime, options: Options): Promise<PreparedRestore> {
    const { imageDir, workDir, bundle } = options;
    await mkdir(workDir, { recursive: true, mode: 0o711 });
    const tmpfs = await remakeTmpfs(imageDir, criuFolder(bundle));
    try {
      const lines = [...tmpfs.lines, ...makeCgroupYard(yardIn(bundle))];
      await writeFile(join(workDir, configName), `${lines.join('\n')}\n`, { mode: 0o600 });
      // crun has CRIU restore the interface with the namespace.
      if (runtime.name === 'runc') await editConfig(bundle, withLoopback);
    } catch (error) {
      await tmpfs[Symbol.asyncDispose]();
      throw error;
    }
    return new PreparedRestore(runtime, options, tmpfs);
  }

  /**
   * Has the OCI runtime restore the container.
   * @param disk brings its root file system, where that is not there yet
   */
  async run(rest: Rest, disk?: () => Promise<void>): Promise<void> {
    if (disk === undefined) return this.#restore(rest);
    if (!this.#runtime.asksCriuFirst) {
      await disk();
      return this.#restore(rest);
    }
    await using gate = new DiskGate(join(criuFolder(this.#options.bundle), 'gate'));
    const inVain = new AbortController();
    const ready = disk().then(
      () => gate.open(),
      (error: unknown) => {
        inVain.abort();
        throw error;
      },
    );
    const [disked, restored] = await Promise.allSettled([
      ready,
      this.#restore({ ...rest, diskGate: gate.folder, signal: inVain.signal }),
    ]);
    for (const result of [disked, restored]) if (result.status === 'rejected') throw result.reason;
  }

  async #restore(rest: Rest): Promise<void> {
    const criuConfig = join(this.#options.workDir, configName);
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

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#tmpfs[Symbol.asyncDispose]();
    // An image of a host with other hierarchies has CRIU mount its own there.
    await unmountBelow(yardIn(this.#options.bundle));
  }
}

const configName = 'criu.conf';

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
