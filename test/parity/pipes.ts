import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { join } from 'node:path';

/** Named pipes as a client of containerd's API makes them, with a reader and a writer at our ends. */
export class Pipes {
  readonly stdio: { stdin: string; stdout: string; stderr: string };
  readonly #reader: ChildProcess;
  readonly #writer: ChildProcess;
  readonly #errors: ChildProcess;
  readonly #text: Promise<string>;

  constructor(folder: string) {
    const [stdin, stdout, stderr] = [join(folder, 'in'), join(folder, 'out'), join(folder, 'err')];
    execFileSync('mkfifo', [stdin, stdout, stderr]);
    this.stdio = { stdin, stdout, stderr };
    this.#errors = spawn('cat', [stderr], { stdio: 'ignore' });
    this.#reader = spawn('cat', [stdout], { stdio: ['ignore', 'pipe', 'ignore'] });
    this.#writer = spawn('/bin/sh', ['-c', 'exec cat >"$0"', stdin], { stdio: ['pipe', 'ignore', 'ignore'] });
    let text = '';
    this.#reader.stdout?.on('data', (chunk: Buffer) => (text += chunk.toString()));
    this.#text = new Promise((resolve) => this.#reader.once('close', () => resolve(text)));
  }

  write(text: string): void {
    this.#writer.stdin?.write(text);
  }

  end(): void {
    this.#writer.stdin?.end();
  }

  /** All output, once the last writer has closed its end; what there is of it after five seconds. */
  async text(): Promise<string> {
    const timer = setTimeout(() => this.#reader.kill(), 5000);
    return this.#text.finally(() => clearTimeout(timer));
  }

  close(): void {
    this.#reader.kill();
    this.#writer.kill();
    this.#errors.kill();
  }
}
