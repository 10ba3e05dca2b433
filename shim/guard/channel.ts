import type { Socket } from 'node:net';
import type { ToGuard, ToWorker } from './messages.ts';

/** The guard's end of its connection with one worker: lines of JSON, which at the worker's end are Node's messages between parent and child. */
export class Channel {
  /** Settles when the worker has closed its end, and all that it said is heard. */
  readonly silent: Promise<void>;
  readonly #socket: Socket;
  #rest = '';

  constructor(socket: Socket, receive: (message: ToGuard) => void) {
    this.#socket = socket;
    this.silent = new Promise((resolve) => socket.once('close', () => resolve()));
    socket.setEncoding('utf8');
    socket.on('error', () => undefined); // it has ended
    socket.on('data', (text: string) => {
      const lines = (this.#rest + text).split('\n');
      this.#rest = lines.pop() ?? '';
      for (const line of lines) receive(JSON.parse(line) as ToGuard);
    });
  }

  send(message: ToWorker): void {
    if (this.#socket.writable) this.#socket.write(`${JSON.stringify(message)}\n`);
  }
}
