import type { GrpcClient } from '../api/grpc-client.ts';
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
    this.#channel = new Channel(
      globals.socket,
      address === undefined ? {} : { 'stasis-containerd-address': address },
    );
    this.#stasis = this.#channel.service(StasisDefinition);
  }

  get stasis(): Stasis {
    return this.#stasis;
  }

  /** For calls: Ctrl-C cancels them. */
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
   * When the user cancels, the error says how `container` stands.
   */
  async follow<U extends { $case: string; value: unknown }>(
    title: string,
    container: string,
    updates: AsyncIterable<Update<U>>,
    take: (update: U) => void,
  ): Promise<void> {
    const { progress, quiet } = this.globals;
    const { stderr } = this.host;
    const display = new ProgressDisplay(stderr, title, (progress || stderr.isTTY === true) && !quiet);
    try {
      for await (const { update, warnings } of updates) {
        if (warnings.length > 0 || update?.$case !== 'progress') display.clear();
        for (const warning of warnings) this.warn(warning);
        if (isProgress(update)) display.update(update.value);
        else if (update !== undefined) take(update);
      }
    } catch (error) {
      display.close();
      if (codeOf(error) !== Code.Cancelled || !this.host.signal.aborted) throw error;
      throw new Cancelled(`${title}: cancelled`, {
        subject: container,
        cause: new Error(await this.#state(container)),
        remedy: `look at it with \`stasis ls ${container}\``,
      });
    } finally {
      display.close();
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
