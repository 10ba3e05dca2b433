import { connect, type Socket } from 'node:net';
import { FrameDecoder, FrameFlag, FrameType, type Frame, type MessageFrame } from '../../ttrpc/frame.ts';
import {
  bareFrame,
  bytesOf,
  Direct,
  marked,
  payloadOf,
  setFlags,
  statusFrame,
  WHOLE_FRAME,
} from './frames.ts';
import type { Note } from './notes.ts';
import {
  canBeLeft,
  FIRST,
  isHarmless,
  isPatient,
  isPrompt,
  MAX_WORKERS,
  type Open,
  openOf,
  PATIENCE_MS,
  PROMPT_MS,
  takesTurns,
  TASK_SERVICE,
} from './requests.ts';
import { descriptorOf } from './successor.ts';
import { Turns } from './turns.ts';

/** Codes of ttrpc's (and gRPC's) status. */
const CANCELED = 1;
const UNKNOWN = 2;
const INVALID_ARGUMENT = 3;
const RESOURCE_EXHAUSTED = 8;
const UNAVAILABLE = 14;

/** How soon it is looked again whether a worker has answered itself, while something waits for that. */
const LOOK_MS = 1;

/**
 * What a worker sends is read into this, whichever of its connections it comes by, and is done with before anything else is read: that
 * spares each answer a buffer of its own, and its way through a stream.
 */
const answers = Buffer.allocUnsafeSlow(64 << 10);

/** Which requests are kept back for now. Kill is passed on until nothing else is under way: what is may wait for it. */
export type Hold = 'nothing' | 'changes' | 'all';

/** A client's connection, as a program that takes this one's place has it. */
export interface SessionState {
  readonly fd: number;
  /** What is unanswered; bodies in base64. */
  readonly open: readonly {
    readonly streamId: number;
    readonly type: number;
    readonly flags: number;
    readonly body: string;
    readonly workers: number;
  }[];
}

/** Finds what a worker has left to answer a request with, the body of a Response. */
export type Find = (method: string, payload: Buffer) => Buffer | undefined;

export interface SessionOptions {
  readonly find?: Find;
  readonly hold?: Hold;
  readonly note?: Note | undefined;
  /** Those of all connections. */
  readonly turns?: Turns;
  /** What the program before this one has left of it. */
  readonly state?: SessionState | undefined;
}

/**
 * A client's connection, which outlives the worker's: each worker is given a connection of its own for it.
 *
 * INVARIANTS
 * - The client gets whole frames, and each request one answer: a worker's, or why there is none. A worker that ends right after it has
 *   answered a prompt request itself has the next one answer it again, which clients ignore, as nobody waits for it any more.
 * - While a worker may write to the client itself, this side writes nothing there that could be cut.
 * - A request goes to each worker at most once, in the order of the client's but for those that are kept back or wait for their turn.
 * - Where a worker has left an answer to what a restarted containerd asks first, that waits for PATIENCE_MS at most, and not at all while
 *   no worker comes for now. A worker that has not heard the first of the two is not asked the second: it would not know why.
 */
export class Session {
  readonly #client: Socket;
  readonly #fromClient = new FrameDecoder();
  readonly #open = new Map<number, Open>();
  #lastStreamId = 0;
  /** The stream that the worker may answer itself; one at a time, as the note has room for one. */
  #lent: number | undefined;
  /** Where it notes that it has. */
  readonly #note: Note | undefined;
  /** Frames that wait until there is none. */
  #kept: Buffer[] = [];
  #look: NodeJS.Timeout | undefined;
  readonly #onClose: () => void;
  readonly #find: Find;
  readonly #turns: Turns;
  #worker: Socket | undefined;
  /** Whether the client has asked anything, and whether that was the first question of a restarted containerd alone. */
  #begun: boolean;
  #isReload = false;
  /** Who was given that question; undefined where it was answered by what was left. */
  #first: Socket | undefined;
  /** Streams that a worker was given, and that were answered by what was left. */
  readonly #spokenFor = new Set<number>();
  /** Whether no worker comes for now. */
  #isVacant = false;
  /** Why requests are refused; undefined while they wait for a worker, or have one. */
  #refusal: string | undefined;
  /** Why what is not given to a worker waits. */
  #why = "the shim's worker is being replaced";
  #hold: Hold;

  constructor(client: Socket, onClose: () => void, options: SessionOptions = {}) {
    const { state } = options;
    this.#client = client;
    this.#note = options.note;
    this.#turns = options.turns ?? new Turns();
    this.#find = options.find ?? (() => undefined);
    this.#begun = state !== undefined;
    for (const { workers, body, ...rest } of state?.open ?? []) {
      const frame: MessageFrame = { kind: 'message', ...rest, body: Buffer.from(body, 'base64') };
      this.#add({ ...openOf(frame, false), workers });
    }
    this.#hold = options.hold ?? 'nothing';
    this.#onClose = onClose;
    client.on('data', (chunk) => {
      for (const frame of this.#fromClient.push(chunk)) this.#request(frame);
    });
    client.on('drain', () => this.#worker?.resume());
    client.on('error', () => undefined);
    client.once('close', () => {
      this.#worker?.destroy();
      this.#note?.close();
      clearTimeout(this.#look);
      this.#onClose();
      for (const streamId of [...this.#open.keys()]) this.#forget(streamId);
    });
  }

  /** A worker serves: it gets all that is unanswered. */
  attach(path: string): void {
    this.#refusal = undefined;
    this.#isVacant = false;
    const decoder = new FrameDecoder();
    const worker = connect({
      path,
      onread: {
        buffer: answers,
        callback: (length, bytes) => {
          for (const frame of decoder.push(bytes.subarray(0, length))) this.#answer(frame);
          return true;
        },
      },
    });
    this.#worker = worker;
    if (!this.#client.destroyed) {
      worker.write(bareFrame(descriptorOf(this.#client), Direct.Client));
      if (this.#note !== undefined) worker.write(this.#note.frame);
    }
    worker.on('drain', () => this.#client.resume());
    worker.on('error', () => undefined);
    worker.once('close', () => {
      if (this.#worker === worker) this.#worker = undefined;
    });
    this.#client.resume(); // what could not be written to the last one is no reason any more
    for (const open of this.#open.values()) if (!open.given) this.#give(open);
  }

  /** What a worker has been given that changes something, and that it has not answered. */
  get changing(): string[] {
    return [...this.#open.values()]
      .filter((open) => open.given && !isHarmless(open))
      .map(({ method }) => method);
  }

  hold(hold: Hold): void {
    this.#hold = hold;
    for (const open of this.#open.values()) if (!open.given) this.#give(open);
  }

  /** Another worker goes on with all that this one was given, which is nothing that changes anything. */
  handOver(path: string): void {
    this.#worker?.destroy();
    this.#worker = undefined;
    this.#takeBack();
    this.#spokenFor.clear();
    for (const open of this.#open.values()) {
      if (open.given && open.isSecond) this.#speakFor(open);
      open.given = false;
    }
    this.attach(path);
  }

  /** Whether nothing of it is here alone, but for what `state` has: half a request, or an answer that is not out. */
  get isStill(): boolean {
    this.#settle();
    const { readableLength, writableLength } = this.#client;
    const isOut = writableLength === 0 && this.#kept.length === 0;
    return readableLength === 0 && isOut && !this.#fromClient.midFrame;
  }

  get state(): SessionState {
    this.#settle();
    const open = [...this.#open.values()].map(({ frame: { streamId, type, flags, body }, workers }) => ({
      streamId,
      type,
      flags,
      body: Buffer.from(body).toString('base64'),
      workers,
    }));
    return { fd: descriptorOf(this.#client), open };
  }

  get isAttached(): boolean {
    return this.#worker !== undefined;
  }

  /** The worker has ended. @param why for those whose requests end with it */
  detach(why: string): void {
    const worker = this.#worker;
    this.#worker = undefined;
    this.#why = `${why}, and the next one does not serve yet`;
    worker?.destroy();
    this.#takeBack();
    this.#spokenFor.clear();
    for (const [streamId, open] of this.#open) {
      if (!open.given) continue;
      open.given = false;
      this.#limit(open);
      open.workers++;
      if (open.isSecond && this.#speakFor(open)) continue;
      const { service, method, workers } = open;
      if (!TASK_SERVICE.test(service) || open.frame.flags !== 0) {
        this.#refuse(streamId, `${method} was cut off: ${why}`);
      } else if (workers >= MAX_WORKERS && !isPatient(open)) {
        this.#refuse(
          streamId,
          `${method} is given up, as ${workers} workers have ended while they dealt with it: ${why}`,
        );
      }
    }
  }

  /** No worker comes for now: requests are answered with the reason. */
  refuse(reason: string): void {
    this.#refusal = reason;
    this.vacate();
    for (const [streamId, open] of this.#open) if (!isPatient(open)) this.#refuse(streamId, reason);
  }

  /** No worker comes for now: what cannot wait is answered by what was left. */
  vacate(): void {
    this.#isVacant = true;
    for (const open of this.#open.values()) this.#speakFor(open);
  }

  /** Lets the client go, once it has what was written. */
  end(): void {
    this.#takeBack();
    this.#client.end();
  }

  #request(frame: Frame): void {
    const { streamId } = frame;
    if (frame.kind === 'oversize') {
      this.#write(
        statusFrame(streamId, RESOURCE_EXHAUSTED, `a message of ${frame.length} bytes is too large`),
      );
      return;
    }
    const open = this.#open.get(streamId);
    if (frame.type === FrameType.Request) {
      if (streamId <= this.#lastStreamId) {
        this.#write(statusFrame(streamId, INVALID_ARGUMENT, 'StreamID cannot be re-used and must increment'));
        return;
      }
      const next = this.#add(openOf(frame, this.#isReload));
      this.#isReload = !this.#begun && next.method === FIRST;
      this.#begun = true;
      if (this.#isUrgent(next) && this.#speakFor(next)) return;
      if (this.#refusal !== undefined && !isPatient(next)) this.#refuse(streamId, this.#refusal);
      else this.#give(next);
    } else if (open !== undefined && !open.given && frame.type === FrameType.Cancel) {
      this.#forget(streamId);
      this.#write(statusFrame(streamId, CANCELED, 'context canceled'));
    } else if (open?.given !== false) {
      this.#pass(bytesOf(frame));
    }
  }

  #add(open: Open): Open {
    const { streamId } = open.frame;
    this.#open.set(streamId, open);
    this.#lastStreamId = Math.max(this.#lastStreamId, streamId);
    if (canBeLeft(open)) open.patience = setTimeout(() => this.#speakFor(open), PATIENCE_MS).unref();
    return open;
  }

  #forget(streamId: number): void {
    const open = this.#open.get(streamId);
    if (open === undefined) return;
    this.#open.delete(streamId);
    clearTimeout(open.patience);
    this.#turns.done(open);
  }

  /** Whether it is not to wait for a worker. */
  #isUrgent({ isSecond }: Open): boolean {
    return this.#isVacant || (isSecond && this.#first !== this.#worker);
  }

  /** @returns whether it was answered by what was left for it */
  #speakFor(open: Open): boolean {
    const { frame, method, given } = open;
    const { streamId } = frame;
    if (!canBeLeft(open) || this.#open.get(streamId) !== open) return false;
    const body = this.#find(method, payloadOf(frame.body));
    if (body === undefined) return false;
    this.#forget(streamId);
    if (given) this.#spokenFor.add(streamId);
    if (method === FIRST) this.#first = undefined;
    this.#write(bytesOf({ kind: 'message', streamId, type: FrameType.Response, flags: 0, body }));
    return true;
  }

  #give(open: Open): void {
    if (this.#worker === undefined || this.#keepsBack(open)) {
      this.#limit(open);
      return;
    }
    if (takesTurns(open) && !this.#turns.take(open, () => this.#give(open))) return;
    open.given = true;
    if (open.method === FIRST) this.#first = this.#worker;
    if (open.workers > 0) {
      this.#pass(bytesOf(marked(open.frame)));
      return;
    }
    const { streamId, flags } = open.frame;
    const isLent = this.#lends(open);
    if (isLent) this.#lent = streamId;
    setFlags(open.bytes, isLent ? Direct.Allowed : flags & ~Direct.Allowed); // no client's own
    this.#pass(open.bytes);
  }

  /** See PROMPT. */
  #limit(open: Open): void {
    if (open.limited || !isPrompt(open)) return;
    open.limited = true;
    const { streamId } = open.frame;
    const late = (): void => {
      if (this.#open.get(streamId) !== open) return;
      open.limited = false;
      if (!open.given) this.#refuse(streamId, this.#why);
    };
    setTimeout(late, open.came + PROMPT_MS - performance.now()).unref();
  }

  #lends(open: Open): boolean {
    if (!isPrompt(open) || open.frame.flags !== 0) return false;
    this.#settle();
    return this.#lent === undefined && this.#client.writableLength === 0;
  }

  /** Looks whether the worker has noted that it has answered. */
  #settle(): void {
    if (this.#lent === undefined || this.#note?.last !== this.#lent) return;
    this.#forget(this.#lent);
    this.#giveBack();
  }

  /** The worker writes nothing to the client any more. */
  #takeBack(): void {
    this.#settle();
    this.#giveBack();
  }

  #giveBack(): void {
    this.#lent = undefined;
    for (const bytes of this.#kept.splice(0)) this.#write(bytes);
  }

  /** Until then: the worker tells of nothing that it notes. */
  #lookSoon(): void {
    this.#look ??= setTimeout(() => {
      this.#look = undefined;
      this.#settle();
      if (this.#kept.length > 0) this.#lookSoon();
    }, LOOK_MS);
  }

  #keepsBack(open: Open): boolean {
    if (this.#hold === 'changes') return open.method !== 'Kill' && !isHarmless(open);
    return this.#hold === 'all';
  }

  /** What is written before the connection stands is sent once it does. */
  #pass(bytes: Buffer): void {
    if (this.#worker?.write(bytes) === false) this.#client.pause();
  }

  #answer(frame: Frame): void {
    if (frame.kind === 'oversize') return; // no worker sends one
    const { streamId, type, flags } = frame;
    if (type === FrameType.Response && this.#spokenFor.delete(streamId)) return;
    const isAnswered = type === Direct.Answered;
    if (isAnswered || type === FrameType.Response || (flags & FrameFlag.RemoteClosed) !== 0) {
      this.#forget(streamId);
      if (this.#lent === streamId) this.#takeBack();
    }
    if (!isAnswered) this.#write(bytesOf(frame));
  }

  #refuse(streamId: number, reason: string): void {
    const open = this.#open.get(streamId);
    const isUnknown = open !== undefined && isPrompt(open);
    this.#forget(streamId);
    this.#write(
      isUnknown
        ? statusFrame(streamId, UNKNOWN, `${reason}: unknown`)
        : statusFrame(streamId, UNAVAILABLE, `${reason}: unavailable`),
    );
  }

  #write(bytes: Buffer): void {
    const canBeCut = bytes.length > WHOLE_FRAME || this.#client.writableLength > 0;
    if (canBeCut) this.#settle();
    if (this.#kept.length > 0 || (canBeCut && this.#lent !== undefined)) {
      this.#kept.push(bytes);
      this.#lookSoon();
    } else if (!this.#client.write(bytes)) this.#worker?.pause();
  }
}
