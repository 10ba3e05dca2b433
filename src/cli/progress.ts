import type { Progress } from '../proto/gen/stasis/stasis.ts';
import type { Output } from './host.ts';
import { printable } from './text.ts';
import { size } from '../units.ts';

/** Milliseconds that nothing is shown: what is over sooner needs no progress. */
const DELAY = 1000;
const REDRAW = 200;

/** Shows how far a call is: one line that is drawn anew on a terminal, else one line for each phase. */
export class ProgressDisplay {
  readonly #output: Output;
  readonly #title: string;
  readonly #terminal: boolean;
  readonly #start = Date.now();
  readonly #timer: NodeJS.Timeout | undefined;
  #progress: Progress | undefined;
  #phaseShown: string | undefined;
  #drawn = false;

  /** Shows nothing unless `enabled`. Call `close` at the end, or the timer stays. */
  constructor(output: Output, title: string, enabled: boolean, delay = DELAY) {
    this.#output = output;
    this.#title = title;
    this.#terminal = output.isTTY === true;
    if (!enabled) return;
    this.#timer = setInterval(
      () => {
        if (Date.now() - this.#start >= delay) this.#draw();
      },
      Math.min(REDRAW, delay),
    );
    this.#timer.unref();
  }

  update(progress: Progress): void {
    this.#progress = progress;
  }

  /** Takes the line away. */
  close(): void {
    clearInterval(this.#timer);
    this.clear();
  }

  /** Makes room for other text on the same terminal. */
  clear(): void {
    if (this.#drawn) this.#output.write('\r\x1b[K');
    this.#drawn = false;
  }

  #draw(): void {
    const progress = this.#progress;
    if (progress === undefined) return;
    const seconds = ((Date.now() - this.#start) / 1000).toFixed(1);
    const text = `${this.#title}: ${printable(progress.phase)}${amount(progress)}`;
    if (this.#terminal) {
      const line = Array.from(`${text}  ${seconds} s`).slice(0, (this.#output.columns ?? 80) - 1);
      this.#output.write(`\r\x1b[K${line.join('')}`);
      this.#drawn = true;
    } else if (progress.phase !== this.#phaseShown) {
      this.#output.write(`${text}\n`);
      this.#phaseShown = progress.phase;
    }
  }
}

function amount({ doneBytes, totalBytes }: Progress): string {
  if (totalBytes > 0n) {
    return ` ${size(doneBytes)} of ${size(totalBytes)} (${Number((doneBytes * 100n) / totalBytes)} %)`;
  }
  return doneBytes > 0n ? ` ${size(doneBytes)}` : '';
}
