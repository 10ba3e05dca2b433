import { mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { exec } from '../../../src/sys/command.ts';

const MIB = 1 << 20;

/**
 * A file for a pool that takes no writes as long as it is told so, as a disk does whose controller hangs: it lies on
 * a file system of its own, which is frozen (fsfreeze(8)). One that answers with errors would be no test of ours:
 * zfs-fuse suspends a pool then, and its `zpool clear` cannot always wake it up.
 */
export class StallingDisk {
  readonly #folder: string;
  #stalled = false;

  private constructor(folder: string) {
    this.#folder = folder;
  }

  static async make(): Promise<StallingDisk> {
    const folder = await mkdtemp(join(tmpdir(), 'stasis-disk-'));
    const disk = new StallingDisk(folder);
    await writeFile(`${folder}/image`, '');
    await truncate(`${folder}/image`, 300 * MIB);
    await run('mkfs.ext4', '-q', `${folder}/image`);
    await mkdir(`${folder}/mnt`);
    await run('mount', '-o', 'loop', `${folder}/image`, `${folder}/mnt`);
    await writeFile(disk.device, '');
    await truncate(disk.device, 192 * MIB);
    return disk;
  }

  /** Where it is mounted. */
  get mountPoint(): string {
    return `${this.#folder}/mnt`;
  }

  /** A sparse file of 192 MiB. */
  get device(): string {
    return `${this.#folder}/mnt/device`;
  }

  async stall(): Promise<void> {
    await run('fsfreeze', '-f', `${this.#folder}/mnt`);
    this.#stalled = true;
  }

  /** Lets the writes that wait, and all others, go on. */
  async go(): Promise<void> {
    if (!this.#stalled) return;
    await run('fsfreeze', '-u', `${this.#folder}/mnt`);
    this.#stalled = false;
  }

  async remove(): Promise<void> {
    await run('umount', `${this.#folder}/mnt`);
    await rm(this.#folder, { recursive: true });
  }
}

async function run(file: string, ...args: string[]): Promise<void> {
  const { exitCode, stderr, spawnError } = await exec(file, args);
  if (exitCode !== 0) throw new Error(`${file} ${args.join(' ')}: ${spawnError ?? stderr}`);
}
