import { constants } from 'node:os';
import { closeSync, writeSync } from 'node:fs';
import { pipe, type Pipe } from './descriptor.ts';
import { check, lastErrno, native } from './libc.ts';

// epoll(7), poll(2)
const create = native<[number]>('int epoll_create1(int flags)');
const control = native<[number, number, number, Buffer]>(
  'int epoll_ctl(int epfd, int operation, int fd, void *event)',
);
const wait = native<[number, Buffer, number, number]>(
  'int epoll_wait(int epfd, void *events, int max, int timeout)',
);
const poll = native<[Buffer, number, number]>('int poll(void *fds, unsigned long count, int timeout)');

const EPOLL_CLOEXEC = 0o2000000;
const ADD = 1;
const DELETE = 2;
const MODIFY = 3;
const IN = 1;
const OUT = 4;
const ONE_SHOT = 1 << 30;
/** struct epoll_event is packed on x86-64 alone: epoll_event(3type). */
const EVENT_SIZE = process.arch === 'x64' ? 12 : 16;
const DATA_OFFSET = process.arch === 'x64' ? 4 : 8;
const MAX_EVENTS = 64;

type Ready = () => void;

interface Interest {
  input: Ready | undefined;
  output: Ready | undefined;
  known: boolean;
}

/**
 * Tells when a pipe, FIFO or terminal can be read or written, without reading or writing it: Node has no such thing. One of libuv's
 * threads waits for all of them.
 *
 * INVARIANTS
 * - Each call of `readable` or `writable` is answered once, later than it returns, and never after `forget`.
 * - A descriptor is forgotten before it is closed: the kernel would go on telling of it while another process has it open.
 * - A process that ends closes this first: libuv waits for its threads.
 */
export class Readiness {
  readonly #epoll: number;
  readonly #wake: Pipe;
  readonly #events = Buffer.alloc(EVENT_SIZE * MAX_EVENTS);
  readonly #interests = new Map<number, Interest>();
  #waiting = false;
  #closed = false;

  constructor() {
    this.#epoll = check('epoll_create1', create(EPOLL_CLOEXEC));
    this.#wake = pipe();
    this.#control(ADD, this.#wake.read, IN);
  }

  /** Calls back when there is something to read, or the end. One caller for each descriptor. */
  readable(fd: number, ready: Ready): void {
    this.#interest(fd).input = ready;
    this.#arm(fd);
  }

  /** Calls back when something can be written, or nobody will read it. One caller for each descriptor. */
  writable(fd: number, ready: Ready): void {
    this.#interest(fd).output = ready;
    this.#arm(fd);
  }

  forget(fd: number): void {
    const interest = this.#interests.get(fd);
    this.#interests.delete(fd);
    if (interest?.known === true) this.#control(DELETE, fd, 0);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#interests.clear();
    if (this.#waiting) writeSync(this.#wake.write, 'x');
    else this.#release();
  }

  #interest(fd: number): Interest {
    let interest = this.#interests.get(fd);
    if (interest === undefined)
      this.#interests.set(fd, (interest = { input: undefined, output: undefined, known: false }));
    return interest;
  }

  #arm(fd: number): void {
    const interest = this.#interest(fd);
    const mask = (interest.input === undefined ? 0 : IN) | (interest.output === undefined ? 0 : OUT);
    if (this.#closed || mask === 0) return;
    this.#control(interest.known ? MODIFY : ADD, fd, (mask | ONE_SHOT) >>> 0);
    interest.known = true;
    this.#wait();
  }

  #control(operation: number, fd: number, mask: number): void {
    const event = Buffer.alloc(EVENT_SIZE);
    event.writeUInt32LE(mask, 0);
    event.writeInt32LE(fd, DATA_OFFSET);
    check('epoll_ctl', control(this.#epoll, operation, fd, event), String(fd));
  }

  #wait(): void {
    if (this.#waiting) return;
    this.#waiting = true;
    const call = wait.async as (...all: unknown[]) => void;
    call(this.#epoll, this.#events, MAX_EVENTS, -1, (_error: unknown, count: number) => {
      this.#waiting = false;
      if (this.#closed) this.#release();
      else this.#tell(count);
    });
  }

  #tell(count: number): void {
    // Whoever is told may have the thread wait again, which writes into the same memory.
    const events = Buffer.from(this.#events.subarray(0, Math.max(count, 0) * EVENT_SIZE));
    for (let at = 0; at < events.length; at += EVENT_SIZE) {
      const mask = events.readUInt32LE(at);
      const fd = events.readInt32LE(at + DATA_OFFSET);
      const interest = this.#interests.get(fd);
      if (interest === undefined) continue;
      const { input, output } = interest;
      const isOver = (mask & ~(IN | OUT)) !== 0; // the end, or an error: whoever waits finds out
      if ((mask & IN) !== 0 || isOver) interest.input = undefined;
      if ((mask & OUT) !== 0 || isOver) interest.output = undefined;
      if (interest.input !== input) input?.();
      if (interest.output !== output && this.#interests.get(fd) === interest) output?.();
      if (this.#interests.get(fd) === interest) this.#arm(fd);
    }
    if (!this.#closed) this.#wait();
  }

  #release(): void {
    for (const fd of [this.#epoll, this.#wake.read, this.#wake.write]) closeSync(fd);
  }
}

/** Whether a descriptor has something to read, or its end, at this moment: poll(2). @throws SysError */
export function isReadable(fd: number): boolean {
  const entry = Buffer.alloc(8);
  entry.writeInt32LE(fd, 0);
  entry.writeInt16LE(IN, 4);
  const count = poll(entry, 1, 0);
  if (count === -1 && lastErrno() === constants.errno.EINTR) return false;
  return check('poll', count, String(fd)) > 0;
}
