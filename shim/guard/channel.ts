import type { Socket } from 'node:net';
import { descriptorOf } from './successor.ts';
import type { ToGuard, ToWorker } from './messages.ts';

/** The guard's end of its connection with one worker: lines of JSON, which at the worker's end are Node's messages between parent and child. */
export class Channel {
  /** Settles when the worker has closed its end, and all that it said is heard. */
  readonly silent: Promise<void>;
  readonly #socket: Socket;
  #rest = '';

  /** @param rest what the program before this one has heard of a line that was not whole */
  constructor(socket: Socket, receive: (message: ToGuard) => void, rest = '') {
    this.#socket = socket;
    this.#rest = rest;
    this.silent = new Promise((resolve) => socket.once('close', () => resolve()));
    socket.setEncoding('utf8');
    socket.on('error', () => undefined); // it has ended
    socket.on('data', (text: string) => {
      const lines = (this.#rest + text).split('\n');
      this.#rest = lines.pop() ?? '';
      for (const line of lines) receive(JSON.parse(line) as ToGuard);
    });
  }

  get state(): { readonly fd: number; readonly rest: string } {
    return { fd: descriptorOf(this.#socket), rest: this.#rest };
  }

  /** Whether all that was sent is out. */
  get isStill(): boolean {
    return this.#socket.writableLength === 0;
  }

  send(message: ToWorker): void {
    if (this.#socket.writable) this.#socket.write(`${JSON.stringify(message)}\n`);
  }
}
