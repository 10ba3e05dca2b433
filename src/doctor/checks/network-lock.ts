import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import type { Check } from '../obstacle.ts';
import { connectionsOf } from './tcp-peer.ts';

/** While CRIU dumps TCP sockets it keeps packets from them, by iptables. */
export const networkLock: Check = (view) => {
  if (connectionsOf(view).length === 0 || onPath('iptables-restore')) return [];
  return [
    {
      name: 'network-lock',
      severity: 'error',
      subject: `container ${view.id}`,
      message: 'has TCP sockets, and CRIU cannot keep packets from them: iptables-restore is not on PATH',
      remedy: 'install iptables',
    },
  ];
};

function onPath(name: string): boolean {
  return (process.env['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin').split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, name), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}
