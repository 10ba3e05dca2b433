import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf, Unavailable } from '../../src/errors.ts';
import type { Exec } from '../../src/sys/command.ts';
import { Any } from '../../src/proto/gen/google/protobuf/any.ts';
import type { Courier } from './courier.ts';
import type { Event, Sink } from './queue.ts';

const TIMEOUT_MS = 5000;
const ATTEMPTS = 5;
const PAUSE_MS = 1000;

export interface SinkOptions {
  namespace: string;
  /** Undefined where containerd has no ttrpc socket. */
  courier: Courier | undefined;
  /** containerd's gRPC socket and program, for the fallback. */
  address: string;
  publishBinary: string;
  exec: Exec;
}

/**
 * Publishes through containerd's ttrpc events service; each event is tried five times, over a new connection where the old one
 * broke, as containerd restarts. Without a ttrpc socket, containerd's own `publish`
 * command does it (containerd's runtime v2 documentation).
 */
export class ContainerdSink implements Sink {
  readonly #options: SinkOptions;
  readonly #closing = new AbortController();

  constructor(options: SinkOptions) {
    this.#options = options;
  }

  async publish(event: Event): Promise<void> {
    const { courier } = this.#options;
    if (courier === undefined) {
      await this.#publishByProgram(event);
      return;
    }
    let last: unknown;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      try {
        if (attempt > 0) await sleep(PAUSE_MS, undefined, { signal: this.#closing.signal });
        await this.#forward(courier, event, attempt > 0);
        return;
      } catch (error) {
        last = error;
        if (this.#closing.signal.aborted) break;
      }
    }
    throw new Unavailable(`containerd did not take the event: ${messageOf(last)}`, { cause: last });
  }

  close(): void {
    this.#closing.abort();
    this.#options.courier?.close();
  }

  async #forward(courier: Courier, event: Event, again: boolean): Promise<void> {
    const { timestamp, topic, typeUrl, value } = event;
    const { namespace } = this.#options;
    const envelope = { timestamp, namespace, topic, event: { typeUrl, value: Buffer.from(value) } };
    const key = `${timestamp.seconds}.${timestamp.nanos} ${topic}`;
    await courier.forward({ envelope }, { key, again, signal: this.#closing.signal });
  }

  async #publishByProgram(event: Event): Promise<void> {
    const { address, namespace, publishBinary, exec } = this.#options;
    const any = Any.encode({ typeUrl: event.typeUrl, value: Buffer.from(event.value) }).finish();
    const args = ['--address', address, 'publish', '--topic', event.topic, '--namespace', namespace];
    const result = await exec(publishBinary, args, {
      input: any,
      timeoutMs: TIMEOUT_MS,
      signal: this.#closing.signal,
    });
    if (result.exitCode !== 0) {
      throw new Unavailable(`${publishBinary} publish failed: ${result.stderr.trim() || result.spawnError}`);
    }
  }
}
