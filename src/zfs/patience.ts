import { DeadlineExceeded, Unavailable } from '../errors.ts';

/** Calls that may wait for a dead pool at once: each holds one of libuv's four threads, which the rest needs too. */
const MOST_LATE = 2;

const REMEDY = 'see zpool status: a pool whose devices fail answers late or never';

/**
 * Waits for calls into mounted file systems no longer than for a command. A system call that waits for a pool whose
 * device is gone cannot be cancelled, not even by SIGKILL; its caller can be told so.
 */
export class Patience {
  readonly #limitMs: number;
  #late = 0;

  /** @param limitMs milliseconds that a call may take */
  constructor(limitMs: number) {
    this.#limitMs = limitMs;
  }

  /**
   * What `call` answers. An answer that comes after the deadline is dropped.
   * @param subject the dataset that is asked, for the error
   * @throws DeadlineExceeded when there is no answer in time
   * @throws Unavailable at once, while others that had none still wait
   */
  async wait<T>(subject: string, call: () => Promise<T>): Promise<T> {
    if (this.#late >= MOST_LATE) {
      throw new Unavailable(`dataset ${subject} is not asked: earlier calls into the pool still wait`, {
        subject,
        remedy: REMEDY,
      });
    }
    const answer = call();
    let late = false;
    let timer: NodeJS.Timeout | undefined;
    const deadline = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        late = true;
        this.#late++;
        const message = `the files of dataset ${subject} do not answer: none in ${this.#limitMs} ms`;
        reject(new DeadlineExceeded(message, { subject, remedy: REMEDY }));
      }, this.#limitMs);
    });
    const settled = (): void => {
      clearTimeout(timer);
      if (late) this.#late--;
    };
    answer.then(settled, settled);
    return Promise.race([answer, deadline]);
  }
}
