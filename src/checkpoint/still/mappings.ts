import { Doubt, read } from './text.ts';

/**
 * The mappings of a process: proc_pid_maps(5).
 * @throws Doubt where another process than the container's may write to one: System V and POSIX shared memory, memfd. Shared
 *   anonymous memory comes by fork alone, and what is mapped of a file on disk is the disk's
 */
export function mappingsOf(pid: number): string {
  const maps = read(`/proc/${pid}/maps`);
  for (const line of maps.split('\n')) {
    // address permissions offset device inode path
    const [, permissions = '', , device = '', , ...path] = line.split(/\s+/);
    if (permissions[3] !== 's') continue;
    const name = path.join(' ');
    if (name.startsWith('/dev/zero')) continue;
    // Device 0:1 is the kernel's own tmpfs, of memfd and System V; /dev/shm is the place of POSIX shared memory.
    if (/^(\/SYSV|\/memfd:|\/dev\/shm\/|anon_inode)/.test(name) || /^0+:0*1$/.test(device))
      throw new Doubt(`it shares memory: ${name}`);
  }
  return maps;
}
