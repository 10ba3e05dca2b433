import { Doubt, link, list, readIdempotent } from './text.ts';

const TCP_LISTEN = '0A';

/**
 * The sockets of a process: none, or such as nothing waits in. A datagram or a connection that comes in while the container
 * is paused is kept by the kernel, and would be in a dump.
 * @throws Doubt for a connection, and for any kind whose queue cannot be seen in /proc: unix, netlink, packet
 */
export function socketsOf(pid: number): string {
  const inodes = new Set<string>();
  for (const fd of list(`/proc/${pid}/fd`)) {
    const inode = /^socket:\[(\d+)\]$/.exec(link(`/proc/${pid}/fd/${fd}`))?.[1];
    if (inode !== undefined) inodes.add(inode);
  }
  if (inodes.size === 0) return '';
  const found: string[] = [];
  for (const [kind, name] of [
    ['tcp', 'tcp'],
    ['tcp', 'tcp6'],
    ['udp', 'udp'],
    ['udp', 'udp6'],
  ] as const) {
    const table = readIdempotent(`/proc/${pid}/net/${name}`);
    for (const line of table.split('\n').slice(1)) {
      // sl local remote state tx_queue:rx_queue timer retransmits uid timeout inode
      const [, local = '', remote = '', state = '', queues = '', , , uid = '', , inode = ''] = line
        .trim()
        .split(/\s+/);
      if (!inodes.delete(inode)) continue;
      if (kind === 'tcp' && state !== TCP_LISTEN) throw new Doubt('it has a connection');
      if (!/^0+:0+$/.test(queues)) throw new Doubt('something waits in a socket');
      found.push(`${name} ${local} ${remote} ${state} ${uid} ${inode}`);
    }
  }
  if (inodes.size > 0) throw new Doubt('it has a socket that cannot be looked into');
  return found.join('\n');
}
