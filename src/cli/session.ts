import type { GrpcCallOptions, GrpcClient } from '../api/grpc-client.ts';
import { addressMetadata, operationMetadata } from '../api/metadata.ts';
import { type Progress, StasisDefinition } from '../proto/gen/stasis/stasis.ts';
import { Cancelled, Code, codeOf, Internal } from '../errors.ts';
import { Channel } from './client.ts';
import type { Globals, Host } from './host.ts';
import { ProgressDisplay } from './progress.ts';
import { oneLine } from './text.ts';

type Stasis = GrpcClient<typeof StasisDefinition>;

/** The update that every streaming call of the API sends. */
interface Update<U extends { $case: string; value: unknown }> {
  readonly update?: U | { $case: 'progress'; value: Progress } | undefined;
  readonly warnings: readonly string[];
}

/** Milliseconds to ask for the state after a cancelled call: the user waits for the prompt. */
const STATE_TIMEOUT = 3000;
/** Milliseconds in which stasisd must take note of a cancellation; how long undoing takes is another matter. */
const CANCEL_TIMEOUT = 3000;

/** One run of a command: its connection, its output, what holds for all commands. */
export class Session {
  readonly host: Host;
  readonly globals: Globals;
  readonly warnings: string[] = [];
  /** What --json prints beside the error when the command fails half-way. */
  partial: Record<string, unknown> = {};
  readonly #channel: Channel;
  readonly #stasis: Stasis;

  constructor(host: Host, globals: Globals) {
    this.host = host;
    this.globals = globals;
    const { address } = globals;
    this.#channel = new Channel(globals.socket, address === undefined ? {} : { [addressMetadata]: address });
    this.#stasis = this.#channel.service(StasisDefinition);
  }

  get stasis(): Stasis {
    return this.#stasis;
  }

  /** For calls that answer at once: Ctrl-C breaks them off. */
  get options(): { signal: AbortSignal } {
    return { signal: this.host.signal };
  }

  /** Prints data: `view` with --json, `names` with --quiet, else `text`. */
  print(view: () => unknown, text: () => string, names: () => readonly string[]): void {
    const { json, quiet } = this.globals;
    if (json) this.host.stdout.write(`${JSON.stringify(view(), null, 2)}\n`);
    else
      this.host.stdout.write(
        quiet
          ? names()
              .map((name) => `${name}\n`)
              .join('')
          : text(),
      );
  }

  /**
   * Runs a streaming call: shows progress and warnings, and hands each result to `take` as it comes.
   * When the user cancels, stasisd is asked to stop and its answer waited for: that it was done all the same is no error, else
   * the error says how `container` stands.
   */
  async follow<U extends { $case: string; value: unknown }>(
    title: string,
    container: string,
    call: (options: GrpcCallOptions) => AsyncIterable<Update<U>>,
    take: (update: U) => void,
  ): Promise<void> {
    const { progress, quiet } = this.globals;
    const { stderr, signal } = this.host;
    const operation = this.#name();
    const breakOff = new AbortController();
    const onAbort = (): void => {
      display.update({ phase: 'cancelling', doneBytes: 0n, totalBytes: 0n });
      void this.#cancel(operation, breakOff);
    };
    const display = new ProgressDisplay(stderr, title, (progress || stderr.isTTY === true) && !quiet);
    try {
      signal.throwIfAborted();
      signal.addEventListener('abort', onAbort, { once: true });
      const updates = call({ metadata: { [operationMetadata]: operation }, signal: breakOff.signal });
      for await (const { update, warnings } of updates) {
        if (warnings.length > 0 || update?.$case !== 'progress') display.clear();
        for (const warning of warnings) this.warn(warning);
        if (isProgress(update)) display.update(update.value);
        else if (update !== undefined) take(update);
      }
      if (signal.aborted) this.warn('it was done before it could be cancelled');
    } catch (error) {
      display.close();
      if (!signal.aborted || !(error === signal.reason || codeOf(error) === Code.Cancelled)) throw error;
      throw new Cancelled(`${title}: cancelled`, {
        subject: container,
        cause: new Error(await this.#state(container)),
        remedy: `look at it with \`stasis ls ${container}\``,
      });
    } finally {
      signal.removeEventListener('abort', onAbort);
      display.close();
    }
  }

  /**
   * A call with one answer that ends quickly once it has begun. When the user cancels, stasisd is asked to stop and its answer
   * waited for, as in `follow`. @throws Cancelled where nothing was done
   */
  async finish<T>(call: (options: GrpcCallOptions) => Promise<T>): Promise<T> {
    const { signal } = this.host;
    const operation = this.#name();
    const breakOff = new AbortController();
    const onAbort = (): void => void this.#cancel(operation, breakOff);
    try {
      signal.throwIfAborted();
      signal.addEventListener('abort', onAbort, { once: true });
      return await call({ metadata: { [operationMetadata]: operation }, signal: breakOff.signal });
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  #name(): string {
    return `${process.pid}-${process.hrtime.bigint().toString(36)}`;
  }

  /** Asks for a call's end. Where that cannot be asked for, the call is broken off, and how it ends is not known. */
  async #cancel(operation: string, breakOff: AbortController): Promise<void> {
    try {
      await this.#stasis.cancel({ operation }, { timeoutMs: CANCEL_TIMEOUT });
    } catch (error) {
      // Not found: it has ended, and its answer is on the way.
      if (codeOf(error) !== Code.NotFound) breakOff.abort();
    }
  }

  /**
   * The result of a call that must have one.
   * @throws Internal when the daemon ended the call without it
   */
  answer<T>(result: T | undefined): T {
    if (result !== undefined) return result;
    throw new Internal('stasisd ended the call without a result', { remedy: "see stasisd's log" });
  }

  /** A warning is part of the result, so --quiet does not silence it. */
  warn(warning: string): void {
    this.warnings.push(warning);
    this.host.stderr.write(`stasis: warning: ${oneLine(warning)}\n`);
  }

  close(): void {
    this.#channel.close();
  }

  /** How a container stands, in a few words, for the message after a cancelled call. */
  async #state(container: string): Promise<string> {
    try {
      const request = { namespace: this.globals.namespace, container, allNamespaces: false };
      const { containers } = await this.#stasis.list(request, { timeoutMs: STATE_TIMEOUT });
      const found = containers.find(({ name }) => name === container);
      if (found === undefined) return `there is no ${container}`;
      const count = found.checkpoints.length;
      return `${container} is ${found.status || 'without a task'} and has ${count} checkpoint${count === 1 ? '' : 's'}`;
    } catch (error) {
      return codeOf(error) === Code.NotFound
        ? `there is no ${container}`
        : `how ${container} stands is not known`;
    }
  }
}

function isProgress(
  update: { $case: string; value: unknown } | undefined,
): update is { $case: 'progress'; value: Progress } {
  return update?.$case === 'progress';
}
