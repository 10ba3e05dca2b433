import { setTimeout as sleep } from 'node:timers/promises';
import { DeadlineExceeded } from '../../src/errors.ts';
import { EventsDefinition, ForwardRequest } from '../../src/proto/gen/containerd/events_ttrpc.ts';
import { HEADER_LENGTH } from '../../ttrpc/frame.ts';
import { decodeResponse, encodeRequest } from '../../ttrpc/message.ts';
import type { Courier, Try } from '../events/courier.ts';

/** Calls others for this process, and knows what was called and answered when another process has taken its place. */
export interface Caller {
  /**
   * @param key a call with the key of the one before is not sent again, unless `afresh`
   * @param body of a ttrpc Request @returns the body of the Response
   * @throws an Error where the connection broke
   */
  call(key: string, path: string, body: Uint8Array, afresh: boolean): Promise<Uint8Array>;
}

/**
 * How long an answer is waited for: as long as the connection stands, containerd has the event or will get it, and to send it again
 * would double it.
 */
const ANSWER_MS = 60_000;

/** Has the guard call containerd: what one worker has sent the next one does not send again. */
export class GuardedCourier implements Courier {
  readonly #caller: Caller;
  readonly #path: string;

  /** @param address a unix socket, with or without `unix://` */
  constructor(caller: Caller, address: string) {
    this.#caller = caller;
    this.#path = address.replace(/^unix:\/\//, '');
  }

  async forward(message: ForwardRequest, { key, again, signal }: Try): Promise<void> {
    const { fullName, methods } = EventsDefinition;
    const head = { service: fullName, method: methods.forward.name };
    const frame = encodeRequest(0, 0, head, { type: ForwardRequest, message });
    const body = frame.subarray(HEADER_LENGTH);
    const over = new AbortController();
    const late = sleep(ANSWER_MS, undefined, { signal: AbortSignal.any([signal, over.signal]) }).then(() => {
      throw new DeadlineExceeded(`containerd has not answered for ${ANSWER_MS / 1000} s`);
    });
    try {
      const answer = await Promise.race([this.#caller.call(key, this.#path, body, again), late]);
      const { status } = decodeResponse(answer);
      if (status !== undefined) throw status;
    } finally {
      late.catch(() => undefined);
      over.abort();
    }
  }

  close(): void {
    // The connection is the guard's, and ends with it.
  }
}
