// Rows `ttrpc-echo-*`: our ttrpc client with our server, and with the one in containerd's shim, by the same call.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { median } from '../measure.ts';
import { callsPerSecond } from './calls.ts';
import type { Tell } from './many.ts';
import { importImage, removeNamespace, shimOf, startIdle, theirs } from './side.ts';

const NAMESPACE = 'bench-echo';

export async function echo(wanted: (name: string) => boolean, tell: Tell, runs: number): Promise<void> {
  if (![1, 64].some((inFlight) => wanted(`ttrpc-echo-${inFlight}`))) return;
  const socket = join(process.env['STASIS_STATE'] ?? '', 'echo.sock');
  const server = fork(join(import.meta.dirname, 'echo-server.ts'), [socket]);
  await once(server, 'message');
  importImage(NAMESPACE);
  await startIdle(NAMESPACE, theirs, 0, 1, 1);
  const id = `${theirs.name}0`;
  const peer = shimOf(NAMESPACE, id);
  for (const inFlight of [1, 64]) {
    const rates: { ours: number[]; peer: number[] } = { ours: [], peer: [] };
    for (let n = 0; n < runs; n++) {
      rates.ours.push(await callsPerSecond({ socket, version: 2 }, id, inFlight));
      rates.peer.push(await callsPerSecond(peer, id, inFlight));
    }
    const values = { ours: median(rates.ours), peer: median(rates.peer) };
    const name = `ttrpc-echo-${inFlight}`;
    if (wanted(name))
      tell(name, 'calls/s', runs, values, undefined, 'our client with the server of containerd-shim-runc-v2');
  }
  server.kill();
  rmSync(socket, { force: true });
  await removeNamespace(NAMESPACE);
}
