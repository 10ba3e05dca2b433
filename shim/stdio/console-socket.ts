import { randomBytes } from 'node:crypto';
import { chmod } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { DeadlineExceeded } from '../../src/errors.ts';
import { receiveDescriptor } from '../../src/sys/scm-rights.ts';

const TIMEOUT_MS = 30_000;
const POLL_MS = 1;

/** A unix socket to which an OCI runtime sends the master of the terminal that it made (runc's docs, "terminals"). */
export class ConsoleSocket {
  readonly path: string;
  readonly #server: Server;
  readonly #connected: Promise<Socket>;

  private constructor(path: string, server: Server) {
    this.path = path;
    this.#server = server;
    this.#connected = new Promise((resolve, reject) => {
      server.once('connection', resolve);
      server.once('error', reject);
      server.once('close', () => reject(new Error('the console socket was closed')));
    });
    this.#connected.catch(() => undefined);
  }

  /** @param folder short enough for the path to fit into sun_path */
  static async listen(folder: string): Promise<ConsoleSocket> {
    const path = `${folder}/c-${randomBytes(6).toString('hex')}`;
    // Paused, so that Node reads nothing: a descriptor that comes along with bytes would be lost.
    const server = createServer({ pauseOnConnect: true });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(path, resolve);
    });
    await chmod(path, 0o600);
    return new ConsoleSocket(path, server);
  }

  /** @throws DeadlineExceeded when no master arrives within 30 s */
  async receive(): Promise<number> {
    const deadline = Date.now() + TIMEOUT_MS;
    const late = new AbortController();
    const socket = await Promise.race([
      this.#connected,
      sleep(TIMEOUT_MS, undefined, { signal: late.signal }).then(
        () => undefined,
        () => undefined,
      ),
    ]);
    late.abort();
    try {
      while (socket !== undefined && Date.now() < deadline) {
        const received = receiveDescriptor(descriptorOf(socket));
        if (received !== undefined) return received.fd;
        await sleep(POLL_MS);
      }
      throw new DeadlineExceeded('no terminal came from the OCI runtime within 30 s');
    } finally {
      socket?.destroy();
    }
  }

  close(): void {
    this.#server.close();
  }
}

/** Node has no public way from a socket to its descriptor. */
function descriptorOf(socket: Socket): number {
  const { _handle: handle } = socket as unknown as { _handle?: { fd: number } };
  if (handle === undefined) throw new Error('the console socket was closed');
  return handle.fd;
}
