import { readFileSync } from 'node:fs';
import { hasErrno } from '../errors.ts';
import { checkInBackground, native, struct } from './libc.ts';

// process_vm_readv(2)
struct('local_iovec', { base: 'void *', length: 'size_t' });
interface Local {
  base: Buffer;
  length: number;
}
const processVmReadv = native<[number, Local, number, Buffer, number, number]>(
  'long process_vm_readv(int pid, const local_iovec *local, unsigned long local_count, const void *remote, unsigned long remote_count, unsigned long flags)',
);

/** At most 1024, IOV_MAX. */
const BATCH = 256;
const IOVEC_BYTES = 16;
const PAGE_BYTES = 4096;

/**
 * Where a process's own memory begins and ends: the first and the last page of each private mapping without a file,
 * proc_pid_maps(5). Empty for one that has ended.
 */
export function edgesOfMemory(pid: number): number[] {
  let maps = '';
  try {
    maps = readFileSync(`/proc/${pid}/maps`, 'latin1');
  } catch (error) {
    if (!hasErrno(error, 'ENOENT') && !hasErrno(error, 'ESRCH')) throw error;
  }
  const private_ = /^([0-9a-f]+)-([0-9a-f]+) r..p [0-9a-f]+ 00:00 0 +(?!\[v)/gm;
  return [...maps.matchAll(private_)].flatMap(([, start = '', end = '']) => {
    const [first, last] = [Number.parseInt(start, 16), Number.parseInt(end, 16) - PAGE_BYTES];
    return first === last ? [first] : [first, last];
  });
}

/**
 * Reads a byte at each of these addresses of another process, which brings their pages in. Waits for each of them, on one of
 * libuv's threads. What cannot be read is passed over, as is a process that has ended.
 */
export async function touchMemory(pid: number, addresses: readonly number[]): Promise<void> {
  for (let at = 0; at < addresses.length;) {
    const batch = addresses.slice(at, at + BATCH);
    at += Math.max(1, await readBytes(pid, batch));
  }
}

/** @returns how many were read before the first that cannot be */
async function readBytes(pid: number, addresses: readonly number[]): Promise<number> {
  const remote = Buffer.alloc(addresses.length * IOVEC_BYTES);
  addresses.forEach((address, index) => {
    remote.writeBigUInt64LE(BigInt(address), index * IOVEC_BYTES);
    remote.writeBigUInt64LE(1n, index * IOVEC_BYTES + 8);
  });
  const local = { base: Buffer.alloc(addresses.length), length: addresses.length };
  try {
    return Number(
      await checkInBackground(
        'process_vm_readv',
        processVmReadv,
        [pid, local, 1, remote, addresses.length, 0],
        String(pid),
      ),
    );
  } catch (error) {
    if (hasErrno(error, 'EFAULT')) return 0;
    if (hasErrno(error, 'ESRCH')) return addresses.length;
    throw error;
  }
}
