import { chmod, unlink } from 'node:fs/promises';
import { connect, createServer, type Server as NetServer, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { type GrpcHandlers, GrpcServer } from '../api/grpc-server.ts';
import { FailedPrecondition, hasErrno, messageOf } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { ServiceDefinition } from '../../ttrpc/service.ts';
import { makeFolder } from '../sys/make-folder.ts';
import { peerCredentials } from '../sys/peer.ts';

/** Adds a service to a server. */
export type Register = <D extends ServiceDefinition>(definition: D, handlers: GrpcHandlers<D>) => void;

export interface ListenerOptions {
  readonly path: string;
  readonly log: Logger;
  /** Services for everyone who may open the socket. */
  readonly common: (register: Register) => void;
  /** Services for the containerd that this stasisd serves. */
  readonly trusted: (register: Register) => void;
  /** The same services for anybody else: they refuse. */
  readonly others: (register: Register) => void;
  /** Whether this process is that containerd. */
  readonly isTrusted: (pid: number) => Promise<boolean>;
}

export interface Listener {
  /** Stops taking connections, lets calls finish for a while, then closes. */
  close(): Promise<void>;
}

/**
 * Serves gRPC on one unix socket, mode 0600. containerd's garbage collector removes every snapshot that it does
 * not know, so a containerd that is not ours must not even see a listing: each connection is given to one of two
 * servers by the process at its other end.
 */
export async function listen(options: ListenerOptions): Promise<Listener> {
  const servers = {
    trusted: newServer(options.common, options.trusted),
    others: newServer(options.common, options.others),
  };
  const accept = async (socket: Socket): Promise<void> => {
    socket.on('error', () => socket.destroy());
    const peer = peerCredentials(socket);
    const trusted = peer !== undefined && (await options.isTrusted(peer.pid));
    servers[trusted ? 'trusted' : 'others'].serve(socket);
  };
  const net = createServer({ pauseOnConnect: false }, (socket) => {
    accept(socket).catch((error: unknown) => {
      options.log.warn('a connection was refused', { error: messageOf(error) });
      socket.destroy();
    });
  });
  await bind(net, options.path);
  return {
    close: async () => {
      net.close();
      await Promise.all(Object.values(servers).map((server) => server.close()));
    },
  };
}

function newServer(...parts: ((register: Register) => void)[]): GrpcServer {
  const server = new GrpcServer();
  for (const part of parts) part((definition, handlers) => server.addService(definition, handlers));
  return server;
}

/** Takes the socket's place. One that somebody still listens on is left alone; a dead one is replaced. */
export async function bind(server: NetServer, path: string): Promise<void> {
  await makeFolder(dirname(path), 0o711);
  if (await answers(path)) {
    throw new FailedPrecondition(`another stasisd already listens on ${path}`, {
      subject: path,
      reason: 'already-running',
      remedy: 'stop it first, or give this one another daemon.run_dir',
    });
  }
  await unlink(path).catch((error: unknown) => {
    if (!hasErrno(error, 'ENOENT')) throw error;
  });
  const mask = process.umask(0o177); // the socket must never be open to others, not even for an instant
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(path, resolve);
    });
  } finally {
    process.umask(mask);
  }
  await chmod(path, 0o600);
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
