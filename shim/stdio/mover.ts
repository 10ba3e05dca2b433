import { closeSync, fstatSync, openSync } from 'node:fs';
import { setTimeout as later } from 'node:timers';
import { isReadable, type Readiness } from '../../src/sys/epoll.ts';
import { move } from '../../src/sys/splice.ts';
import { bytesWaiting } from '../../src/sys/waiting.ts';
import { PIPE_BYTES } from './pipes.ts';
import type { OutputWay } from './taken.ts';
import { Unread } from './unread.ts';

/** What one stream may move before others have their turn. */
const TURN_BYTES = 16 * PIPE_BYTES;
/** After so many times that something was to be moved, and nothing could be, a pause. */
const MAX_FRUITLESS = 3;
const PAUSE_MS = 10;

export interface MoverOptions {
  readonly readiness: Readiness;
  readonly from: number;
  readonly to: number;
  /** What becomes of the rest where the target fails: it is lost, so that the source does not stop, or left where it is. */
  readonly rest: 'lose' | 'leave';
}

/**
 * Carries bytes from one descriptor to another inside the kernel alone: each is in the one or in the other at any instant, whenever
 * this process ends. Closes neither.
 */
export class Mover implements OutputWay {
  /** Settles at the end of the source, where the target failed and the rest is left, and at `stop`. */
  readonly done: Promise<void>;
  readonly #options: MoverOptions;
  readonly #isFile: boolean;
  /** Of output alone. */
  readonly #unread: Unread | undefined;
  #nowhere = -1;
  #started = false;
  #over = false;
  #fruitless = 0;
  #settle: () => void = () => undefined;

  constructor(options: MoverOptions) {
    this.#options = options;
    this.#isFile = fstatSync(options.to).isFile();
    this.#unread = options.rest === 'lose' ? new Unread(options.to) : undefined;
    this.done = new Promise((resolve) => (this.#settle = resolve));
  }

  start(): void {
    if (this.#started) return;
    this.#started = true;
    this.#go();
  }

  pending(): number {
    const unread = this.#unread?.bytes ?? 0;
    if (this.#over) return unread;
    return this.#started && this.#nowhere < 0 ? bytesWaiting(this.#options.from) + unread : 0;
  }

  /** Whether nothing comes any more. */
  get isOver(): boolean {
    return this.#over;
  }

  /** Nobody asks any more what is pending. */
  told(): void {
    if (this.#over) this.#unread?.close();
  }

  stop(): void {
    this.#unread?.close();
    this.#end();
  }

  #end(): void {
    if (this.#over) return;
    this.#over = true;
    if (this.#nowhere >= 0) closeSync(this.#nowhere);
    this.#settle();
  }

  readonly #go = (): void => {
    let moved = 0;
    while (!this.#over && moved < TURN_BYTES) {
      const now = this.#move();
      if (now === undefined) {
        this.#fruitless = moved > 0 ? 0 : this.#fruitless + 1;
        this.#wait();
        return;
      }
      moved += now;
    }
    this.#fruitless = 0;
    if (!this.#over) setImmediate(this.#go);
  };

  /** @returns undefined where nothing can be moved now */
  #move(): number | undefined {
    const { from, to, rest } = this.#options;
    try {
      const target = this.#nowhere >= 0 ? this.#nowhere : to;
      // At the end that the file has now: a rotation may have cut it.
      const at = this.#isFile && target === to ? BigInt(fstatSync(to).size) : undefined;
      const moved = move(from, target, PIPE_BYTES, at);
      if (moved === 0) {
        this.#unread?.end();
        this.#end();
      }
      return moved;
    } catch {
      // A terminal whose other side is gone fails as a target does, and ends with the next attempt.
      if (rest === 'leave' || this.#nowhere >= 0) this.stop();
      else this.#nowhere = openSync('/dev/null', 'w');
      return 0;
    }
  }

  #wait(): void {
    const { readiness, from, to } = this.#options;
    if (this.#fruitless > MAX_FRUITLESS) later(this.#go, PAUSE_MS).unref();
    else if (!this.#isFile && this.#nowhere < 0 && isReadable(from)) readiness.writable(to, this.#go);
    else readiness.readable(from, this.#go);
  }
}
