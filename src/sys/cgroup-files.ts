import { closeSync, openSync, read, readSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { hasErrno } from '../errors.ts';

const readOnThread = promisify(read);

/**
 * Reads the small text files of a cgroup again and again.
 *
 * Descriptors are kept, as opening costs more than reading: a container asked once a second would otherwise open some
 * thirty files a second. An open descriptor does not keep a cgroup from being removed; reading it then fails with ENODEV.
 *
 * Counters are read on the calling thread: the kernel answers them from memory in 3 µs, where handing the read to a thread
 * costs 30 µs of CPU (measured), so a thousand of them would load the host for nothing. The files for which the kernel
 * first sums up over CPUs and cgroups (`*.stat`) are read on a thread, by `summed`.
 */
export class CgroupFiles {
  readonly #folder: string;
  readonly #open = new Map<string, number | undefined>();
  #closed = false;

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** The file's text, or `` when there is no such file or the cgroup is gone. */
  text(name: string): string {
    try {
      const fd = this.#descriptor(name);
      return fd === undefined ? '' : readAll(fd);
    } catch (error) {
      return unlessGone(error);
    }
  }

  /** A single number; `max` answers `unlimited`, what is missing or negative 0. */
  number(name: string, unlimited: bigint): bigint {
    return toNumber(this.text(name), unlimited);
  }

  /** Lines of `key value`. */
  table(name: string): ReadonlyMap<string, bigint> {
    return toTable(this.text(name));
  }

  /** As `text`, for files that the kernel may take long to sum up. */
  async summed(name: string): Promise<string> {
    try {
      const fd = this.#descriptor(name);
      if (fd === undefined) return '';
      const buffer = Buffer.allocUnsafe(LARGE);
      const { bytesRead } = await readOnThread(fd, buffer, 0, LARGE, 0);
      return buffer.toString('latin1', 0, bytesRead);
    } catch (error) {
      return unlessGone(error);
    }
  }

  close(): void {
    this.#closed = true;
    for (const fd of this.#open.values()) if (fd !== undefined) closeSync(fd);
    this.#open.clear();
  }

  #descriptor(name: string): number | undefined {
    if (this.#closed) return undefined;
    if (this.#open.has(name)) return this.#open.get(name);
    let fd: number | undefined;
    try {
      fd = openSync(join(this.#folder, name), 'r');
    } catch (error) {
      if (!hasErrno(error, 'ENOENT') && !hasErrno(error, 'ENODEV')) throw error;
    }
    this.#open.set(name, fd);
    return fd;
  }
}

/** No counter comes near; `memory.stat` and `io.stat` of a host with many disks do not reach the second. */
const SMALL = 4096;
const LARGE = 65536;
const scratch = Buffer.alloc(SMALL);

/** These files are made anew for a read at offset 0, so a full buffer means: read it whole once more, larger. */
function readAll(fd: number): string {
  const size = readSync(fd, scratch, 0, SMALL, 0);
  if (size < SMALL) return scratch.toString('latin1', 0, size);
  const buffer = Buffer.allocUnsafe(LARGE);
  return buffer.toString('latin1', 0, readSync(fd, buffer, 0, LARGE, 0));
}

/** ENODEV: the cgroup was removed. EBADF: closed while a read waited. EOPNOTSUPP, EINVAL: the controller is off. */
function unlessGone(error: unknown): '' {
  if (['ENODEV', 'EBADF', 'EOPNOTSUPP', 'EINVAL'].some((code) => hasErrno(error, code))) return '';
  throw error;
}

export function toNumber(text: string, unlimited: bigint): bigint {
  const trimmed = text.trim();
  if (trimmed === 'max') return unlimited;
  return /^\d+$/.test(trimmed) ? BigInt(trimmed) : 0n;
}

export function toTable(text: string): Map<string, bigint> {
  const table = new Map<string, bigint>();
  for (const line of text.split('\n')) {
    const space = line.indexOf(' ');
    if (space > 0) table.set(line.slice(0, space), toNumber(line.slice(space + 1), 0n));
  }
  return table;
}
