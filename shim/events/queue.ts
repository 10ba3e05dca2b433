import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from '../../src/log.ts';
import { messageOf } from '../../src/errors.ts';
import { wallTime, type WallTime } from '../../src/sys/clock.ts';
import {
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
import type { MessageType } from '../../ttrpc/index.ts';
import type { EventJournal } from './journal.ts';

/** An event as it goes out: containerd's envelope without its namespace. */
export interface Event {
  readonly timestamp: WallTime;
  readonly topic: string;
  readonly typeUrl: string;
  readonly value: Uint8Array;
}

/** Where events go. Rejects when an event could not be delivered. */
export interface Sink {
  publish(event: Event): Promise<void>;
  /** Gives up what is on its way, and all that would follow. */
  close(): void;
}

/** What the shim reports, by the last part of its topic `/tasks/…`. */
interface Messages {
  create: TaskCreate;
  start: TaskStart;
  exit: TaskExit;
  delete: TaskDelete;
  'exec-added': TaskExecAdded;
  'exec-started': TaskExecStarted;
  oom: TaskOOM;
  paused: TaskPaused;
  resumed: TaskResumed;
}
export type EventKind = keyof Messages;

interface Codec<T> {
  /** The bare message name. */
  readonly typeUrl: string;
  readonly encode: (message: T) => Uint8Array;
  readonly containerOf: (value: Uint8Array) => string;
}

const codecs: { readonly [K in EventKind]: Codec<Messages[K]> } = {
  create: codec('TaskCreate', TaskCreate),
  start: codec('TaskStart', TaskStart),
  exit: codec('TaskExit', TaskExit),
  delete: codec('TaskDelete', TaskDelete),
  'exec-added': codec('TaskExecAdded', TaskExecAdded),
  'exec-started': codec('TaskExecStarted', TaskExecStarted),
  oom: codec('TaskOOM', TaskOOM),
  paused: codec('TaskPaused', TaskPaused),
  resumed: codec('TaskResumed', TaskResumed),
};

function codec<T extends { readonly containerId: string }>(name: string, type: MessageType<T>): Codec<T> {
  return {
    typeUrl: `containerd.events.${name}`,
    encode: (message) => type.encode(message).finish(),
    containerOf: (value) => type.decode(value).containerId,
  };
}

/** Takes events in the order in which things happened; never waits, never throws. */
export interface Events {
  publish<K extends EventKind>(kind: K, event: Messages[K]): void;
  /**
   * Before `begin`: a task that an earlier process was making is undone. That it was made had not been written down, so nobody has been
   * told of it, and nobody is to be.
   */
  withdraw(containerId: string): void;
}

const CREATE = '/tasks/create';
/** Events beyond this many that wait for a containerd that is away are dropped, oldest first. */
const MAX_WAITING = 10_000;

/**
 * The shim's one queue of events.
 *
 * INVARIANTS
 * - Events leave in the order in which they were published, one at a time.
 * - An event that the sink gives up on is logged and skipped; the others are not held back for ever.
 * - None leaves before the end of the step in which it was published, in which what it tells of is written down.
 */
export class EventQueue implements Events {
  readonly #sink: Sink;
  readonly #log: Logger;
  readonly #journal: EventJournal | undefined;
  readonly #waiting: Event[] = [];
  /** What earlier processes have said and containerd has not acknowledged, by its content. */
  readonly #said = new Set<string>();
  /** Of that the last of each container, which a request may repeat that is given to this process again. */
  readonly #lastSaid = new Map<string, string>();
  #begun: boolean;
  #draining: Promise<void> | undefined;

  /** @param journal keeps what is not out for the process that follows this one; its events go out first, and none before `begin` */
  constructor(sink: Sink, log: Logger, journal?: EventJournal) {
    this.#sink = sink;
    this.#log = log;
    this.#journal = journal;
    this.#begun = journal === undefined;
    if (journal === undefined || journal.left.length === 0) return;
    this.#waiting.push(...journal.left);
    for (const event of journal.left) {
      this.#said.add(contentOf(event));
      this.#lastSaid.set(containerOf(event), contentOf(event));
    }
  }

  /** From now on events go out; another process may have done that until now. */
  begin(): void {
    this.#begun = true;
    if (this.#waiting.length > 0) this.#draining ??= this.#drain();
  }

  /** All is taken up. From now on only a container's next event is taken for a repetition of what an earlier process has said. */
  resumed(): void {
    this.#said.clear();
  }

  withdraw(containerId: string): void {
    const at = this.#waiting.findLastIndex((event) => containerOf(event) === containerId);
    if (this.#waiting[at]?.topic !== CREATE) return; // what is there is of an earlier task of that name
    this.#waiting.splice(at, 1);
    this.#journal?.drop(at);
    this.#lastSaid.delete(containerId);
  }

  publish<K extends EventKind>(kind: K, event: Messages[K]): void {
    const { typeUrl, encode }: Codec<Messages[K]> = codecs[kind];
    const next = { timestamp: wallTime(), topic: `/tasks/${kind}`, typeUrl, value: encode(event) };
    if (this.#isRepeated(next)) return;
    if (this.#waiting.length >= MAX_WAITING) {
      const dropped = this.#waiting.shift();
      this.#journal?.shift();
      this.#log.warn('too many events wait, one was dropped', { topic: dropped?.topic });
    }
    this.#waiting.push(next);
    this.#journal?.add(next);
    if (this.#begun) this.#draining ??= this.#drain();
  }

  /** Settles when everything published so far is out or given up. */
  async flush(): Promise<void> {
    while (this.#draining !== undefined) await this.#draining;
  }

  /** The end: what is not out after `timeoutMs` milliseconds is dropped, so that nobody waits for a containerd that is gone. */
  async close(timeoutMs: number): Promise<void> {
    const timer = new AbortController();
    const timeout = sleep(timeoutMs, undefined, { signal: timer.signal }).catch(() => undefined);
    await Promise.race([this.flush(), timeout]);
    timer.abort();
    if (this.#draining !== undefined) {
      this.#log.warn('the shim leaves with events that nobody took', { events: this.#waiting.length + 1 });
      this.#waiting.length = 0;
    }
    this.#sink.close();
    await this.flush();
  }

  #isRepeated(event: Event): boolean {
    if (this.#said.size === 0 && this.#lastSaid.size === 0) return false;
    const [container, content] = [containerOf(event), contentOf(event)];
    const isLast = this.#lastSaid.get(container) === content;
    const isRepeated = this.#said.delete(content) || isLast;
    if (isLast || !isRepeated) this.#lastSaid.delete(container);
    return isRepeated;
  }

  async #drain(): Promise<void> {
    // What answers a request in this turn goes first: its client waits, and nobody waits for an event.
    await new Promise((resolve) => setImmediate(resolve));
    for (;;) {
      const event = this.#waiting.shift();
      if (event === undefined) break;
      try {
        await this.#sink.publish(event);
      } catch (error) {
        this.#log.error('an event could not be published', { topic: event.topic, error: messageOf(error) });
      }
      this.#journal?.shift();
    }
    this.#draining = undefined;
  }
}

/** @returns empty for events that are none of a task */
function containerOf({ topic, value }: Event): string {
  const kind = topic.slice('/tasks/'.length);
  return kind in codecs ? codecs[kind as EventKind].containerOf(value) : '';
}

/** What an event says, without when. */
function contentOf({ topic, value }: Event): string {
  return `${topic} ${Buffer.from(value).toString('base64')}`;
}
