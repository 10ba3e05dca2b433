// A ttrpc server: services, the connections that call them, and how it all ends.
import type { Server as NetServer } from 'node:net';
import type { Duplex } from 'node:stream';
import { ServerConnection } from './connection.ts';
import type { Connection } from './context.ts';
import type { Extension } from './extension.ts';
import { DEFAULT_LIMITS } from './limits.ts';
import type { Limits } from './limits.ts';
import { SILENT } from './logger.ts';
import type { Logger } from './logger.ts';
import { Registry } from './registry.ts';
import type { Handlers, ServiceDefinition } from './service.ts';

export interface ServerOptions {
  logger?: Logger;
  limits?: Partial<Limits>;
  /** Told of each connection; see Connection.onClose for its end. */
  onConnection?: (connection: Connection) => void;
  extension?: Extension;
}

/**
 * INVARIANTS
 * - A connection is in `connections` from `accept` until it is closed.
 * - After `shutdown` or `close` was called nothing new is accepted.
 */
export class Server {
  readonly #registry = new Registry();
  readonly #connections = new Set<ServerConnection>();
  readonly #listeners = new Set<NetServer>();
  readonly #logger: Logger;
  readonly #limits: Limits;
  readonly #onConnection: (connection: Connection) => void;
  readonly #extension: Extension | undefined;
  #stopped = false;

  constructor(options: ServerOptions = {}) {
    this.#logger = options.logger ?? SILENT;
    this.#limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.#onConnection = options.onConnection ?? (() => undefined);
    this.#extension = options.extension;
  }

  /** The connections that are open now. */
  get connections(): ReadonlySet<Connection> {
    return this.#connections;
  }

  /**
   * Serves a definition. `fullName` registers it under another name than its own, so that one set of handlers can
   * serve two versions of a package. Throws where the name is taken.
   */
  register<D extends ServiceDefinition>(
    definition: D,
    handlers: Handlers<D>,
    options: { fullName?: string } = {},
  ): this {
    this.#registry.register(definition, handlers, options.fullName ?? definition.fullName);
    return this;
  }

  /** Serves one connection that the caller has made. */
  accept(stream: Duplex): Connection {
    const connection = new ServerConnection(
      stream,
      this.#registry,
      this.#limits,
      this.#logger,
      this.#extension,
    );
    if (this.#stopped) {
      connection.close();
      return connection;
    }
    this.#connections.add(connection);
    connection.onClose(() => this.#connections.delete(connection));
    this.#onConnection(connection);
    return connection;
  }

  /** Serves all connections of a listening server, and closes it with this one. Binding it is the caller's part. */
  listen(listener: NetServer): this {
    this.#listeners.add(listener);
    listener.on('connection', (socket) => void this.accept(socket));
    return this;
  }

  /**
   * Stops accepting, lets the calls in flight finish within `timeout` milliseconds, then drops what is left.
   * Resolves when every connection is closed. A handler may call it, but must not wait for it.
   */
  async shutdown(options: { timeout?: number } = {}): Promise<void> {
    const closed = this.#stop();
    for (const connection of this.#connections) connection.drain();
    const timer = setTimeout(() => this.#dropConnections(), options.timeout ?? 5000);
    await Promise.all([closed, ...[...this.#connections].map(untilClosed)]);
    clearTimeout(timer);
  }

  /** Drops everything now. Resolves when every connection is closed. */
  async close(): Promise<void> {
    const closed = this.#stop();
    const connections = [...this.#connections];
    this.#dropConnections();
    await Promise.all([closed, ...connections.map(untilClosed)]);
  }

  #dropConnections(): void {
    for (const connection of this.#connections) connection.close();
  }

  async #stop(): Promise<void> {
    this.#stopped = true;
    // `accept` stays attached: it closes what the kernel had accepted already.
    const closing = [...this.#listeners].map((listener) => {
      return new Promise<void>((resolve) => {
        if (listener.listening) listener.close(() => resolve());
        else resolve();
      });
    });
    this.#listeners.clear();
    await Promise.all(closing);
  }
}

function untilClosed(connection: Connection): Promise<void> {
  return new Promise((resolve) => connection.onClose(resolve));
}
