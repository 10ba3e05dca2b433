import { setTimeout as sleep } from 'node:timers/promises';
import type { Containerd } from '../../src/containerd/client.ts';
import { GrpcChannel } from '../../src/api/grpc-client.ts';
import {
  TaskCheckpointed,
  TaskCreate,
  TaskDelete,
  TaskExecAdded,
  TaskExecStarted,
  TaskExit,
  TaskOOM,
  TaskPaused,
  TaskResumed,
  TaskStart,
} from '../../src/proto/gen/containerd/events.ts';
import { type Envelope, EventsDefinition } from '../../src/proto/gen/containerd/events_service.ts';
import { stack, until } from '../system/support/stack.ts';

/** What an event of a task says, with all its fields. */
export interface TaskEvent {
  readonly topic: string;
  readonly containerId: string;
  readonly fields: Record<string, unknown>;
}

const decoders = new Map<string, { decode(bytes: Uint8Array): { containerId: string } }>([
  ['/tasks/create', TaskCreate],
  ['/tasks/start', TaskStart],
  ['/tasks/exit', TaskExit],
  ['/tasks/delete', TaskDelete],
  ['/tasks/exec-added', TaskExecAdded],
  ['/tasks/exec-started', TaskExecStarted],
  ['/tasks/oom', TaskOOM],
  ['/tasks/paused', TaskPaused],
  ['/tasks/resumed', TaskResumed],
  ['/tasks/checkpointed', TaskCheckpointed],
]);

/** Listens to containerd's events of all tasks, in the order in which containerd passes them on. */
export class Recorder {
  readonly #containerd: Containerd;
  readonly #events: TaskEvent[] = [];
  #failure: unknown;
  #heard = 0;
  #channel: GrpcChannel | undefined;
  #subscription = new AbortController();

  private constructor(containerd: Containerd) {
    this.#containerd = containerd;
  }

  /** Returns when it listens. */
  static async start(containerd: Containerd): Promise<Recorder> {
    const recorder = new Recorder(containerd);
    try {
      await recorder.listen();
    } catch (error) {
      recorder.close();
      throw error;
    }
    return recorder;
  }

  /** Listens (again, after containerd was away). */
  async listen(): Promise<void> {
    this.#end();
    this.#failure = undefined;
    this.#subscription = new AbortController();
    this.#channel = new GrpcChannel(stack.address);
    void this.#read(this.#channel, this.#subscription.signal);
    // The service does not say when it listens, so it is given something to hear.
    const before = this.#heard;
    await until('containerd to pass events on', async () => {
      await this.#ping();
      await sleep(50);
      return this.#heard > before ? true : undefined;
    });
  }

  of(containerId: string): TaskEvent[] {
    if (this.#failure !== undefined) throw new Error('the recording broke off', { cause: this.#failure });
    return this.#events.filter((event) => event.containerId === containerId);
  }

  close(): void {
    this.#end();
  }

  #end(): void {
    this.#subscription.abort();
    this.#channel?.close();
  }

  async #ping(): Promise<void> {
    const { containers } = this.#containerd.namespace('default');
    const id = `parity-ping-${process.pid}`;
    const spec = {
      typeUrl: 'types.containerd.io/opencontainers/runtime-spec/1/Spec',
      value: Buffer.from('{}'),
    };
    const nothing = { labels: {}, image: '', snapshotter: '', snapshotKey: '', extensions: {}, sandbox: '' };
    const runtime = { name: 'io.containerd.runc.v2', options: undefined };
    const never = { createdAt: undefined, updatedAt: undefined };
    await containers.create({ container: { id, spec, runtime, ...nothing, ...never } });
    await containers.delete({ id });
  }

  async #read(channel: GrpcChannel, signal: AbortSignal): Promise<void> {
    try {
      for await (const envelope of channel.service(EventsDefinition).subscribe({ filters: [] }, { signal })) {
        this.#receive(envelope);
      }
    } catch (error) {
      // A scenario that restarts containerd ends this subscription and makes another.
      if (!signal.aborted) this.#failure = error;
    }
  }

  #receive({ topic, event }: Envelope): void {
    this.#heard++;
    const decoder = decoders.get(topic);
    if (decoder === undefined || event === undefined) return;
    const { containerId, ...fields } = decoder.decode(event.value);
    this.#events.push({ topic, containerId, fields });
  }
}
