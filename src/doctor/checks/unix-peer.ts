import { type ContainerView, eachDescriptor, inodeOf } from '../container-view.ts';
import type { Check, Obstacle } from '../obstacle.ts';

const CONNECTED = '03';

/**
 * Unix sockets that are connected to a process outside. CRIU can leave neither half out: it says `Can't dump half of stream
 * unix connection`. Only the kernel's socket diagnosis knows peers, and iproute2's `ss` asks it.
 */
export function unixPeer(connections: (view: ContainerView) => Promise<string>): Check {
  return async (view) => {
    const connected = connectedSockets(view.proc.read(`/proc/${view.init}/net/unix`));
    const held = new Map<string, string>();
    for (const { descriptor, subject } of eachDescriptor(view)) {
      const inode = inodeOf(descriptor, 'socket');
      if (inode !== undefined && !held.has(inode)) held.set(inode, subject);
    }
    if (![...held.keys()].some((inode) => connected.has(inode))) return [];
    const peers = parsePeers(await connections(view));
    return [...held].flatMap(([inode, subject]): Obstacle[] => {
      const peer = peers.get(inode);
      // 0 also stands for one that waits to be accepted.
      if (peer === undefined || peer === '0' || held.has(peer)) return [];
      return [
        {
          name: 'unix-peer',
          severity: 'error',
          subject,
          message:
            'a Unix socket that is connected to a process outside the container, which CRIU cannot dump',
          remedy: 'close the connection before a checkpoint, or bring its other end into the container',
        },
      ];
    });
  };
}

/** The pure part: inodes of connected sockets, from /proc/PID/net/unix; proc_pid_net(5). */
export function connectedSockets(text: string): Set<string> {
  const found = new Set<string>();
  for (const line of text.split('\n')) {
    const [, , , , , state, inode] = line.trim().split(/\s+/);
    if (state === CONNECTED && inode !== undefined) found.add(inode);
  }
  return found;
}

/** The pure part: peer by inode, from `ss --unix --all --numeric --no-header`; ss(8). 0: connected to nobody. */
export function parsePeers(text: string): Map<string, string> {
  const peers = new Map<string, string>();
  for (const line of text.split('\n')) {
    // Netid State Recv-Q Send-Q name inode name inode; a name may hold blanks
    const [, inode, peer] = /^u_\S+\s+\S+\s+\d+\s+\d+\s+.*?\s(\d+)\s+\S.*?\s(\d+)\s*$/.exec(line) ?? [];
    if (inode !== undefined && peer !== undefined) peers.set(inode, peer);
  }
  return peers;
}
