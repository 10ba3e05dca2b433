import { createServer } from 'node:net';
import { disksService, type DisksHost } from '../checkpoint/stock-disk.ts';
import { DisksDefinition } from '../proto/gen/stasis/internal.ts';
import { Server } from '../../ttrpc/index.ts';
import { bind, type Listener } from './listener.ts';

const CLOSE_TIMEOUT_MS = 3000;

/** Serves the shims of this host, on a ttrpc socket with mode 0600: ttrpc, because a shim does not load gRPC. */
export async function listenForShims(path: string, host: DisksHost): Promise<Listener> {
  const net = createServer();
  await bind(net, path);
  const server = new Server().register(DisksDefinition, disksService(host)).listen(net);
  return { close: () => server.shutdown({ timeout: CLOSE_TIMEOUT_MS }) };
}
