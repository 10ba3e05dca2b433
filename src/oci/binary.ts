import { open, stat } from 'node:fs/promises';
import { ANSWER_TIMEOUT_MS, type Exec } from '../sys/command.ts';
import { findProgram } from '../sys/find-program.ts';
import { errorOf, OciError } from './error.ts';
import type { RuntimeBinary } from './types.ts';

/**
 * Finds out which runtime a name or path is, from what its `--version` prints:
 * `runc version 1.1.5` or `crun version 1.21`, the latter with a line of `+FEATURE` words.
 * @throws OciError of kind `missing-runtime` naming it in double quotes, or `unknown` for another program
 */
export async function detectRuntime(exec: Exec, path: string): Promise<RuntimeBinary> {
  // Read before it is started, which is waited for on this thread: the disk that a client names may not answer.
  const wrapped = await isScript(path);
  const result = await exec(path, ['--version'], { timeoutMs: ANSWER_TIMEOUT_MS });
  if (result.exitCode !== 0) throw errorOf('version', path, path, result, '');
  const first = /^(runc|crun) version (\S+)/m.exec(result.stdout);
  const name = first?.[1];
  if (name !== 'runc' && name !== 'crun') {
    throw new OciError('unknown', 'version', {
      subject: path,
      said: `"${path}" is neither runc nor crun: ${result.stdout.split('\n')[0] ?? ''}`,
      remedy: 'name runc or crun in runtime.oci of the configuration',
    });
  }
  return {
    name,
    path,
    version: (first?.[2] ?? '').replace(/[+~].*$/, ''),
    // runc drives CRIU itself; crun says whether it was built with it.
    criu: name === 'runc' || /\+CRIU\b/.test(result.stdout),
    // A wrapper is a script, or prints its own version first (nvidia-container-runtime).
    ...(first?.index !== 0 || wrapped ? { wrapped: true } : {}),
  };
}

async function isScript(path: string): Promise<boolean> {
  const file = path.includes('/') ? path : findProgram(path, process.env['PATH'] ?? '');
  if (file === undefined) return false;
  try {
    await using handle = await open(file, 'r');
    const { buffer } = await handle.read(Buffer.alloc(2), 0, 2, 0);
    return buffer.toString('latin1') === '#!';
  } catch {
    return false; // it may be executed, and not read
  }
}

/** `detectRuntime`, remembered until the file changes. A bare name (found through PATH) is remembered for good. */
export class RuntimeBinaries {
  readonly #exec: Exec;
  readonly #known = new Map<string, { stamp: string; binary: Promise<RuntimeBinary> }>();

  constructor(exec: Exec) {
    this.#exec = exec;
  }

  async get(path: string): Promise<RuntimeBinary> {
    const stamp = path.includes('/') ? await stampOf(path) : '';
    const known = this.#known.get(path);
    if (known?.stamp === stamp) return known.binary;
    const binary = detectRuntime(this.#exec, path);
    this.#known.set(path, { stamp, binary });
    // A failure is not remembered: the runtime may be installed a moment later.
    binary.catch(() => this.#known.delete(path));
    return binary;
  }
}

async function stampOf(path: string): Promise<string> {
  try {
    const { ino, mtimeMs, size } = await stat(path);
    return `${ino}:${mtimeMs}:${size}`;
  } catch {
    return 'missing';
  }
}
