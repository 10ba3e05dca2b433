import { spawn, type ChildProcess } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { ctr, until } from '../support/stack.ts';

/** One event of a task, without what differs from run to run. */
export interface TaskEvent {
  readonly topic: string;
  readonly id: string;
  readonly status: number;
}

/** Records what containerd reports of one task, with its own `ctr events`. */
export class Recording {
  readonly #child: ChildProcess;
  readonly #task: string;
  #text = '';

  private constructor(child: ChildProcess, task: string) {
    this.#child = child;
    this.#task = task;
    child.stdout?.on('data', (chunk: Buffer) => (this.#text += chunk.toString('utf8')));
  }

  static async start(task: string): Promise<Recording> {
    const recording = new Recording(spawn('ctr', ['events'], { stdio: ['ignore', 'pipe', 'ignore'] }), task);
    // ctr does not say when it listens, so it is given something to hear.
    await until('ctr events to listen', async () => {
      await ctr('namespaces', 'label', 'default', `recording=${task}`);
      await sleep(100);
      return recording.#text.includes('/namespaces/update') ? true : undefined;
    });
    return recording;
  }

  get events(): TaskEvent[] {
    return this.of(this.#task);
  }

  /** What has been seen of another task. */
  of(task: string): TaskEvent[] {
    return this.#text.split('\n').flatMap((line) => {
      const [, topic, json] = / (\/tasks\/\S+) (\{.*\})$/.exec(line) ?? [];
      if (topic === undefined || json === undefined) return [];
      const event = JSON.parse(json) as {
        container_id?: string;
        exec_id?: string;
        id?: string;
        exit_status?: number;
      };
      if (event.container_id !== task) return [];
      const id = event.exec_id ?? event.id ?? '';
      return [{ topic, id: id === task ? 'init' : id, status: event.exit_status ?? 0 }];
    });
  }

  /** Stops once a topic has been seen, and answers all. */
  async through(topic: string): Promise<TaskEvent[]> {
    try {
      await until(`the event ${topic}`, () => this.events.find((event) => event.topic === topic), 20_000);
      return this.events;
    } catch (error) {
      const seen = this.events.map(({ topic, id }) => `${topic} ${id}`).join(', ');
      throw new Error(`task ${this.#task}: seen only ${seen || 'nothing'}`, { cause: error });
    } finally {
      this.stop();
    }
  }

  stop(): void {
    this.#child.kill();
  }
}
