import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Containerd, type NamespaceClient } from '../../src/containerd/client.ts';
import { codeOf, messageOf } from '../../src/errors.ts';
import { exec as runProgram, type CommandResult } from '../../src/sys/command.ts';
import { image, readIfThere, stack, until } from '../system/support/stack.ts';

import { uniqueName } from '../system/support/container.ts';
import { Pipes } from './pipes.ts';

/** One step of a play as it went; made comparable at the end of the play, when all names are known. */
export interface Step {
  readonly what: string;
  outcome: unknown;
}

/** One play of a scenario: what it was told and what it saw, and how its containers are made. */
export class Recorded {
  readonly runtime: string;
  readonly containerd: Containerd;
  readonly snapshotter: string;
  readonly folder = mkdtempSync(join(stack.state, 'data/tmp/play-'));
  readonly fifos = join(this.folder, 'fifos');
  readonly steps: Step[] = [];
  readonly containers: string[] = [];
  readonly pids: number[] = [];
  readonly image = image;
  readonly #pipes: Pipes[] = [];
  #leased: NamespaceClient | undefined;

  constructor(runtime: string, containerd: Containerd, snapshotter: string) {
    this.runtime = runtime;
    this.containerd = containerd;
    this.snapshotter = snapshotter;
    mkdirSync(this.fifos);
  }

  get api(): NamespaceClient {
    return this.#leased ?? this.containerd.namespace('default');
  }

  /** Keeps what is written to the content store meanwhile, checkpoints above all, from garbage collection. */
  async keeping(play: () => Promise<void>): Promise<void> {
    await this.containerd.withLease('default', async (leased) => {
      this.#leased = leased;
      await play().finally(() => (this.#leased = undefined));
    });
  }

  /** A new container's name. */
  name(): string {
    const name = `${uniqueName('par')}x`; // none is the beginning of another
    this.containers.push(name);
    return name;
  }

  /** What an error or an output is recorded as. */
  note(what: string, outcome: unknown): void {
    this.steps.push({ what, outcome });
  }

  /** A call of ctr, recorded with exit code and output. */
  async ctr(...args: string[]): Promise<CommandResult> {
    return this.program('ctr', args);
  }

  /** A program, recorded with exit code and output. */
  async program(file: string, args: string[], options: { input?: string } = {}): Promise<CommandResult> {
    const step: Step = { what: `${file} ${args.slice(0, 3).join(' ')}`, outcome: 'no end' };
    this.steps.push(step);
    const result = await runProgram(file, args, { timeoutMs: 90_000, ...options });
    const { exitCode, signal, stdout, stderr, timedOut } = result;
    step.outcome = { exit: timedOut ? 'timed out' : (exitCode ?? signal), stdout, stderr };
    return result;
  }

  /** An API call, recorded with its answer or its error, in the place where it was asked. */
  async call<T>(what: string, answer: Promise<T>): Promise<T | undefined> {
    const step: Step = { what, outcome: 'no answer' };
    this.steps.push(step);
    try {
      const value = await answer;
      step.outcome = value;
      return value;
    } catch (error) {
      step.outcome = `error ${codeOf(error)}: ${messageOf(error)}`;
      return undefined;
    }
  }

  /** Flags that `ctr run` and `ctr containers create` have in common. */
  flags(name: string, extra: readonly string[] = []): string[] {
    const base = ['--runtime', this.runtime, '--snapshotter', this.snapshotter, '--env', `PARITY=${name}`];
    return [...base, ...extra];
  }

  /** Named pipes for a process's input and output, with someone at their other ends. */
  pipes(): Pipes {
    const pipes = new Pipes(mkdtempSync(join(this.folder, 'pipes-')));
    this.#pipes.push(pipes);
    return pipes;
  }

  /** Waits for a file of the play's folder to hold something, and records it. */
  async file(
    name: string,
    whole: (text: string) => boolean = (text) => text.endsWith('\n'),
  ): Promise<string> {
    const path = join(this.folder, name);
    const text = await until(
      `${path} to be written`,
      () => {
        const now = readIfThere(path);
        return now !== undefined && whole(now) ? now : undefined;
      },
      5000,
    );
    this.note(`file ${name}`, text);
    return text;
  }

  /** Milliseconds in which something has to happen or not to. */
  pause(milliseconds: number): Promise<void> {
    return sleep(milliseconds);
  }

  /** Gives a process id its place in the order of those heard of. */
  met(pid: number | undefined): void {
    if (pid !== undefined && pid !== 0 && !this.pids.includes(pid)) this.pids.push(pid);
  }

  clear(): void {
    for (const pipe of this.#pipes) pipe.close();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
