// A place for one call of the ready command line: a folder that the script `stasis` finds.
import {
  closeSync,
  constants,
  type FSWatcher,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  watch,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { makeFifo } from '../../sys/fifo.ts';

/** Milliseconds between the two system calls with which a caller makes a file and writes its line. */
const UNFINISHED_CALL = 1000;
const { O_NONBLOCK, O_RDWR, O_WRONLY } = constants;

/** What is told of a slot; each at most once, but for signals. */
export interface SlotEvents {
  /** Somebody has called. @param count of arguments */
  called(pid: number, count: number): void;
  /** A signal that came to the caller since. */
  signalled(): void;
  /** Somebody has begun to call, and was ended in the middle of it. */
  spoilt(): void;
}

/**
 * The protocol, whose other side is src/cli/ready/stasis.sh:
 *
 * - `call` is made by the caller, by whoever is the first (O_EXCL), with its pid and the number of its arguments in a line. It adds
 *   a line for each signal that it is sent.
 * - `answer` is a FIFO, which we have open for writing from before anybody can see it: our end is its end. We write `no`, and the
 *   caller starts a process of its own; or `begun` and, when the command has ended, `exit CODE`.
 */
export class Slot {
  readonly #path: string;
  readonly #events: SlotEvents;
  readonly #watcher: FSWatcher;
  /** Our end of the FIFO. */
  readonly answer: number;
  #lines = 0;
  #timer: NodeJS.Timeout | undefined;
  #removed = false;

  /** @param path in a folder that only root can enter. @throws as mkdir, mkfifo and open do */
  constructor(path: string, events: SlotEvents) {
    this.#path = path;
    this.#events = events;
    const unfinished = hidden(path, 'new');
    mkdirSync(unfinished, { mode: 0o700 });
    const fifo = join(unfinished, 'answer');
    makeFifo(fifo, 0o600);
    const both = openSync(fifo, O_RDWR | O_NONBLOCK);
    this.answer = openSync(fifo, O_WRONLY | O_NONBLOCK);
    closeSync(both);
    this.#watcher = watch(unfinished, () => this.#look());
    this.#watcher.on('error', () => undefined); // whoever takes the folder away takes it from callers, too
    renameSync(unfinished, path);
  }

  /** Tells the caller. Where it is gone, nobody is told. */
  say(line: string): void {
    try {
      writeSync(this.answer, `${line}\n`);
    } catch {
      // EPIPE: who watches the caller finds out.
    }
  }

  /** Takes the place away, in one step: whoever is about to call meets nothing, or all of it. */
  remove(): void {
    if (this.#removed) return;
    this.#removed = true;
    clearTimeout(this.#timer);
    this.#watcher.close();
    const old = hidden(this.#path, 'old');
    try {
      renameSync(this.#path, old);
    } catch {
      return; // it is away
    }
    rmSync(old, { recursive: true, force: true });
  }

  /** What was said is still heard. */
  close(): void {
    closeSync(this.answer);
  }

  #look(): void {
    if (this.#removed) return;
    const text = this.#read();
    if (text === undefined) return;
    const lines = text.split('\n').slice(0, -1);
    const [first] = lines;
    if (first === undefined) {
      this.#timer ??= setTimeout(() => {
        if (this.#lines === 0) this.#events.spoilt();
      }, UNFINISHED_CALL);
      return;
    }
    const news = lines.slice(this.#lines);
    const isNew = this.#lines === 0;
    this.#lines = lines.length;
    if (isNew) {
      clearTimeout(this.#timer);
      news.shift();
      const [pid, count] = first.split(' ');
      this.#events.called(Number(pid), Number(count));
    }
    for (const _ of news) this.#events.signalled();
  }

  #read(): string | undefined {
    try {
      return readFileSync(join(this.#path, 'call'), 'latin1');
    } catch {
      return undefined; // not called yet
    }
  }
}

/** A neighbour that the script does not look at. */
function hidden(path: string, kind: 'new' | 'old'): string {
  const at = path.lastIndexOf('/') + 1;
  return `${path.slice(0, at)}.${kind}-${path.slice(at)}`;
}
