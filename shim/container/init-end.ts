import { messageOf } from '../../src/errors.ts';
import type { Logger } from '../../src/log.ts';
import type { Events } from '../events/queue.ts';
import type { InitProcess } from '../process/init.ts';
import type { Exit, Expectation } from '../reaper/reaper.ts';
import type { Accounting } from './accounting.ts';
import { publishExit } from './exit-event.ts';
import { ExitOrder } from './exit-order.ts';
import type { ContainerFill } from './fill.ts';

/** What of a container its first process's end concerns. */
export interface InitEndParts {
  readonly init: InitProcess;
  readonly accounting: Accounting;
  readonly fill: ContainerFill | undefined;
  readonly events: Events;
  readonly log: Logger;
  /** Whether others may live on in its pid namespace. */
  readonly sharesPids: boolean;
  /** Whether systemd takes the cgroup away by itself. */
  readonly systemdCgroup: boolean;
  /** Writes the task's record. */
  readonly save: () => void;
}

/** What happens when a container's first process has ended, from the kernel's word to the event. */
export class InitEnd {
  readonly order = new ExitOrder((exit) => void this.#tell(exit));
  readonly #parts: InitEndParts;

  constructor(parts: InitEndParts) {
    this.#parts = parts;
  }

  /** From when the process exists. */
  watch(expectation: Expectation): void {
    expectation.claim(this.#parts.init.pid, (exit) => void this.#gone(exit));
  }

  /** The first process is gone. Where others share its pid namespace they go with it. */
  async #gone(exit: Exit): Promise<void> {
    const { init, sharesPids, accounting, log } = this.#parts;
    init.hasGone();
    this.order.initGone();
    if (sharesPids) {
      await accounting.kill().catch((error: unknown) => {
        log.error('the processes of an ended container could not be killed', { error: messageOf(error) });
      });
    }
    this.order.initEnded(exit);
  }

  /** In its order, after those of all execs. */
  async #tell(exit: Exit): Promise<void> {
    const { init, fill, accounting, systemdCgroup, events, save } = this.#parts;
    fill?.stop();
    if (init.state.name === 'paused') {
      await accounting
        .freezer()
        .thaw()
        .catch(() => undefined);
    }
    if (systemdCgroup) await accounting.remember();
    await init.outputTaken();
    if (init.state.name !== 'deleted') init.state.to('stopped'); // else deleted before it was started
    init.setExited(exit);
    accounting.checkOom();
    publishExit(events, init.id, init.id, exit);
    save();
  }
}
