import { tcpSocketsInUse } from '../../sys/tcp-sockets.ts';
import { type ContainerView, eachDescriptor, inodeOf } from '../container-view.ts';
import type { Check } from '../obstacle.ts';

const ESTABLISHED = '01';

interface Connection {
  readonly local: string;
  readonly remote: string;
  readonly state: string;
  readonly inode: string;
}

/** Open TCP connections to somewhere else: the peer goes on while the container goes back. */
export const tcpPeer: Check = (view) => {
  const connections = connectionsOf(view);
  if (connections.length === 0) return [];
  const locals = new Set(connections.map(({ local }) => local));
  const outside = new Map(
    connections
      .filter(({ state, remote }) => state === ESTABLISHED && !locals.has(remote))
      .map((connection) => [connection.inode, connection]),
  );
  if (outside.size === 0) return [];
  const found = [];
  for (const { descriptor, subject } of eachDescriptor(view)) {
    const connection = outside.get(inodeOf(descriptor, 'socket') ?? '');
    if (connection === undefined) continue;
    found.push({
      name: 'tcp-peer',
      severity: 'warning' as const,
      subject,
      message: `a TCP connection to ${readable(connection.remote)}, outside the container: a restore can take it up only at the same address, and while its peer still waits`,
      remedy: 'close connections before a checkpoint, and have the program connect again after a restore',
    });
  }
  return found;
};

/** All TCP sockets of the container's network namespace. */
export function connectionsOf(view: ContainerView): Connection[] {
  const read = (name: string): string => view.proc.read(`/proc/${view.init}/net/${name}`);
  if (tcpSocketsInUse(read('sockstat'), read('sockstat6')) === 0) return [];
  return ['tcp', 'tcp6'].flatMap((name) => parseConnections(read(name)));
}

/** The pure part: /proc/PID/net/tcp and tcp6, proc_pid_net(5). An IPv4 address inside an IPv6 one counts as itself. */
export function parseConnections(text: string): Connection[] {
  return text.split('\n').flatMap((line) => {
    const [, local, remote, state, , , , , , inode] = line.trim().split(/\s+/);
    if (local === undefined || remote === undefined || state === undefined || inode === undefined) return [];
    if (!local.includes(':')) return []; // the heading
    return [{ local: plain(local), remote: plain(remote), state, inode }];
  });
}

function plain(address: string): string {
  return address.replace(/^0000000000000000FFFF0000/, '');
}

/** The kernel prints each 32-bit word of an address as the processor has it; both of ours are little-endian. */
function readable(address: string): string {
  const [host = '', port = ''] = address.split(':');
  const bytes = (host.match(/.{8}/g) ?? []).flatMap((word) => (word.match(/../g) ?? []).reverse());
  const text =
    bytes.length === 4
      ? bytes.map((byte) => parseInt(byte, 16)).join('.')
      : `[${(bytes.join('').toLowerCase().match(/.{4}/g) ?? []).join(':')}]`;
  return `${text}:${parseInt(port, 16)}`;
}
