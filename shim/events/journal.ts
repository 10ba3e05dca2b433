import { appendFileSync, ftruncateSync, mkdirSync, openSync, readFileSync, closeSync, rmSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Event } from './queue.ts';

/** One line of the file: an event, that the oldest one is out, or which one is to go to nobody. */
type Line =
  | {
      readonly seconds: string;
      readonly nanos: number;
      readonly topic: string;
      readonly typeUrl: string;
      /** Base64. */
      readonly value: string;
    }
  | { readonly drop: number }
  | 'out';

/**
 * The events that containerd has not acknowledged, on a tmpfs, so that they outlive this process. On this thread, and before
 * what they tell of is written down: see Container.
 */
export class EventJournal {
  /** What earlier processes have left, oldest first. */
  readonly left: readonly Event[];
  readonly #path: string;
  readonly #fd: number;
  #waiting: number;

  constructor(path: string) {
    mkdirSync(dirname(path), { recursive: true, mode: 0o711 });
    this.#path = path;
    this.#fd = openSync(path, 'a+', 0o600);
    this.left = read(readFileSync(path, 'utf8'));
    this.#waiting = this.left.length;
  }

  add({ timestamp, topic, typeUrl, value }: Event): void {
    this.#waiting++;
    const { seconds, nanos } = timestamp;
    this.#write({
      seconds: String(seconds),
      nanos,
      topic,
      typeUrl,
      value: Buffer.from(value).toString('base64'),
    });
  }

  /** The oldest is out, or given up. */
  shift(): void {
    this.#waiting--;
    if (this.#waiting > 0) this.#write('out');
    else ftruncateSync(this.#fd);
  }

  /** One is to go to nobody. @param at how many are before it */
  drop(at: number): void {
    this.#waiting--;
    this.#write({ drop: at });
  }

  /** Nobody follows. */
  remove(): void {
    closeSync(this.#fd);
    rmSync(this.#path, { force: true });
  }

  #write(line: Line): void {
    appendFileSync(this.#fd, `${JSON.stringify(line)}\n`);
  }
}

/** A last line that was cut off in its middle tells of nothing that has been written down. */
function read(text: string): Event[] {
  const events: Event[] = [];
  for (const raw of text.split('\n').slice(0, -1)) {
    const line = JSON.parse(raw) as Line;
    if (line === 'out') {
      events.shift();
      continue;
    }
    if ('drop' in line) {
      events.splice(line.drop, 1);
      continue;
    }
    const { seconds, nanos, topic, typeUrl, value } = line;
    events.push({
      timestamp: { seconds: BigInt(seconds), nanos },
      topic,
      typeUrl,
      value: Buffer.from(value, 'base64'),
    });
  }
  return events;
}
