import { readFile } from 'node:fs/promises';

/** Whether the network namespace of a process holds TCP sockets, listening ones included: proc_pid_net(5). */
export async function hasTcpSockets(pid: number): Promise<boolean> {
  const read = (name: string): Promise<string | undefined> =>
    readFile(`/proc/${pid}/net/${name}`, 'latin1').catch(() => undefined);
  const inUse = tcpSocketsInUse(await read('sockstat'), await read('sockstat6'));
  if (inUse !== undefined) return inUse > 0;
  const tables = await Promise.all([read('tcp'), read('tcp6')]);
  // Of a process that is gone nothing can be said; a kernel without IPv6 has no tcp6.
  if (tables[0] === undefined) return true;
  return tables.some((table) => table !== undefined && table.trimEnd().split('\n').length > 1);
}

/**
 * How many TCP sockets a network namespace has, by its sockstat and sockstat6. To print the sockets themselves the kernel
 * goes through the whole host's table, which takes 10 ms where that is large.
 * @returns undefined where the first file is missing or says nothing of TCP
 */
export function tcpSocketsInUse(
  sockstat: string | undefined,
  sockstat6: string | undefined,
): number | undefined {
  const four = /^TCP: inuse (\d+)/m.exec(sockstat ?? '')?.[1];
  if (four === undefined) return undefined;
  return Number(four) + Number(/^TCP6: inuse (\d+)/m.exec(sockstat6 ?? '')?.[1] ?? 0);
}
