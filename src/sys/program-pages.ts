import { readFile, readlink } from 'node:fs/promises';
import { checkInBackground, native } from './libc.ts';

// madvise(2)
const madvise = native<[number, number, number]>('int madvise(uintptr_t address, size_t length, int advice)');
const MADV_DONTNEED = 4;

/** A stretch of this process's address space, in bytes. */
export interface Mapping {
  readonly start: number;
  readonly length: number;
}

/**
 * Lets go of the pages of this process's own program, which come back one by one as they are used, from the page cache:
 * MADV_DONTNEED, madvise(2). Most of a Node's code and constants are needed for its start alone, or for the compiler, and
 * two thirds of a small Node's resident memory are such pages. The kernel can then take them away without
 * asking this process, which it does only when memory is short.
 * @throws SysError; ENOENT where /proc is not mounted
 */
export async function releaseProgramPages(): Promise<void> {
  own ??= await ownMappings();
  for (const mapping of own) await releasePages(mapping);
}

/** They stay as the loader left them, and to look at all of this process's memory takes longer than to release them. */
let own: readonly Mapping[] | undefined;

async function ownMappings(): Promise<Mapping[]> {
  const [smaps, program] = await Promise.all([
    readFile('/proc/self/smaps', 'latin1'),
    readlink('/proc/self/exe'),
  ]);
  return unchangedMappings(smaps, program);
}

/**
 * Mappings of a file that hold nothing but what is in the file: proc_pid_smaps(5). To release a page that differs from its file
 * would lose it, and the loader makes such pages of constants that hold addresses, read-only though they are afterwards.
 */
export function unchangedMappings(smaps: string, file: string): Mapping[] {
  const found: Mapping[] = [];
  for (const entry of smaps.split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m)) {
    const head = /^([0-9a-f]+)-([0-9a-f]+) r-[x-]p [0-9a-f]+ \S+ [1-9][0-9]* +(.+)\n/.exec(entry);
    const isFiles = /^Anonymous: +0 kB$/m.test(entry) && /^Swap: +0 kB$/m.test(entry);
    if (head?.[3] !== file || !isFiles) continue;
    const [start, end] = [head[1], head[2]].map((text = '') => Number.parseInt(text, 16)) as [number, number];
    found.push({ start, length: end - start });
  }
  return found;
}

/**
 * Drops a mapping's pages from this process. Only for what `unchangedMappings` finds.
 * @throws SysError EINVAL for an address inside a page; ENOMEM where nothing is mapped
 */
export async function releasePages({ start, length }: Mapping): Promise<void> {
  await checkInBackground('madvise', madvise, [start, length, MADV_DONTNEED], `0x${start.toString(16)}`);
}
