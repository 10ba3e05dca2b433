import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf, Unavailable } from '../../src/errors.ts';
import type { Exec } from '../../src/sys/command.ts';
import { EventsDefinition } from '../../src/proto/gen/containerd/events_ttrpc.ts';
import { Any } from '../../src/proto/gen/google/protobuf/any.ts';
import { Client } from '../../ttrpc/index.ts';
import type { Event, Sink } from './queue.ts';

const TIMEOUT_MS = 5000;
const ATTEMPTS = 5;
const PAUSE_MS = 1000;

export interface SinkOptions {
  namespace: string;
  /** containerd's ttrpc socket; empty where it has none. */
  ttrpcAddress: string;
  /** containerd's gRPC socket and program, for the fallback. */
  address: string;
  publishBinary: string;
  exec: Exec;
}

/**
 * Publishes through containerd's ttrpc events service; each event is tried five times, five seconds each, over a new
 * connection where the old one broke, as containerd restarts. Without a ttrpc socket, containerd's own `publish`
 * command does it (containerd's runtime v2 documentation).
 */
export class ContainerdSink implements Sink {
  readonly #options: SinkOptions;
  readonly #closing = new AbortController();
  #client: Client | undefined;

  constructor(options: SinkOptions) {
    this.#options = options;
  }

  async publish(event: Event): Promise<void> {
    if (this.#options.ttrpcAddress === '') {
      await this.#publishByProgram(event);
      return;
    }
    let last: unknown;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      try {
        if (attempt > 0) await sleep(PAUSE_MS, undefined, { signal: this.#closing.signal });
        await this.#forward(event);
        return;
      } catch (error) {
        last = error;
        this.#disconnect();
        if (this.#closing.signal.aborted) break;
      }
    }
    throw new Unavailable(`containerd did not take the event: ${messageOf(last)}`, { cause: last });
  }

  close(): void {
    this.#closing.abort();
    this.#disconnect();
  }

  #disconnect(): void {
    this.#client?.close();
    this.#client = undefined;
  }

  async #forward(event: Event): Promise<void> {
    if (this.#client === undefined || this.#client.closed) {
      this.#client = await Client.connect(this.#options.ttrpcAddress, {
        signal: AbortSignal.any([AbortSignal.timeout(TIMEOUT_MS), this.#closing.signal]),
      });
    }
    const envelope = {
      timestamp: event.timestamp,
      namespace: this.#options.namespace,
      topic: event.topic,
      event: { typeUrl: event.typeUrl, value: Buffer.from(event.value) },
    };
    await this.#client.service(EventsDefinition).forward({ envelope }, { timeout: TIMEOUT_MS });
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
