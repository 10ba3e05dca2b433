import { type ChildProcess, spawn } from 'node:child_process';
import { createConnection } from 'node:net';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { attempt, dev, stack, until } from './stack.ts';

const socket = process.env['STASIS_ADDRESS'] ?? '';

/** A stasisd of the test's own in the place of the stack's, so that it can be killed and given other settings. */
export class OwnDaemon {
  #child: ChildProcess | undefined;
  #output = '';

  /** Stops the stack's stasisd. `giveBack` starts it again. */
  static async take(): Promise<OwnDaemon> {
    await dev('stop', 'stasisd');
    return new OwnDaemon();
  }

  async giveBack(): Promise<void> {
    await this.kill();
    await dev('start', 'stasisd');
    await routed();
  }

  get output(): string {
    return this.#output;
  }

  /**
   * Starts it; `edit` changes the text of the configuration, `env` the environment. Returns when containerd reaches it; one that is
   * to be killed, when it listens or has ended.
   */
  async start(
    edit: (config: string) => string = (config) => config,
    env: Record<string, string> = {},
  ): Promise<void> {
    await this.kill();
    const config = join(stack.state, 'data/tmp/own-stasisd.toml');
    writeFileSync(config, edit(readFileSync(stack.config, 'utf8')));
    this.#output = '';
    const child = spawn(join(stack.project, 'dist/stasisd'), [], {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { ...process.env, ...env, STASIS_CONFIG: config },
    });
    this.#child = child;
    child.stderr.on('data', (chunk: Buffer) => (this.#output += chunk.toString()));
    await until(
      'stasisd to listen',
      async () =>
        (await this.listens()) || child.exitCode !== null || child.signalCode !== null ? true : undefined,
      60_000,
    );
    if ('KILL_BEFORE' in env || 'KILL_AFTER' in env) return;
    if (!this.running) throw new Error(`stasisd ended: ${this.#output}`);
    await routed();
  }

  get running(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  async kill(): Promise<void> {
    const child = this.#child;
    if (child === undefined || !this.running) return;
    child.kill('SIGKILL');
    await this.ended();
  }

  async ended(): Promise<void> {
    await until('stasisd to end', () => (this.running ? undefined : true));
  }

  listens(): Promise<boolean> {
    return new Promise((resolve) => {
      const connection = createConnection(socket);
      connection.once('connect', () => {
        connection.destroy();
        resolve(true);
      });
      connection.once('error', () => resolve(false));
    });
  }
}

/**
 * containerd dials a stasisd that came back only after a pause of its own, 3 s at most. One that was started gives stasisd a second to
 * answer its first connection, and fails what was asked meanwhile: in an emulated machine beside others that is too short now and then.
 */
export async function routed(): Promise<void> {
  await until('containerd to reach stasisd', async () =>
    (await attempt('ctr', ['snapshots', '--snapshotter', 'stasis', 'ls'])).exitCode === 0 ? true : undefined,
  );
}
