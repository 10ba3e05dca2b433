import { EventsDefinition } from '../../src/proto/gen/containerd/events_ttrpc.ts';
import { Client } from '../../ttrpc/index.ts';
import type { ForwardRequest } from '../../src/proto/gen/containerd/events_ttrpc.ts';

/** One try of the sink's. */
export interface Try {
  /** The same for each try of one event, also for one that another process makes. */
  readonly key: string;
  /** Whether one before it has failed, in this process. */
  readonly again: boolean;
  readonly signal: AbortSignal;
}

/** Takes events to containerd's ttrpc events service. */
export interface Courier {
  /** @throws an Error where containerd has not acknowledged it; it may have it all the same where the connection broke */
  forward(request: ForwardRequest, attempt: Try): Promise<void>;
  close(): void;
}

const TIMEOUT_MS = 5000;

/** Over a connection of this process's own, a new one where the last try failed. */
export class OwnConnection implements Courier {
  readonly #address: string;
  #client: Client | undefined;

  constructor(address: string) {
    this.#address = address;
  }

  async forward(request: ForwardRequest, { again, signal }: Try): Promise<void> {
    if (again) this.close();
    if (this.#client === undefined || this.#client.closed) {
      this.#client = await Client.connect(this.#address, {
        signal: AbortSignal.any([AbortSignal.timeout(TIMEOUT_MS), signal]),
      });
    }
    await this.#client.service(EventsDefinition).forward(request, { timeout: TIMEOUT_MS });
  }

  close(): void {
    this.#client?.close();
    this.#client = undefined;
  }
}
