import { readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Script } from 'node:vm';

/** A program in one file, and where its compiled code may be kept. */
export interface CachedProgram {
  /** CommonJS, in ASCII, without `import()`: what leads that to Node's loader is experimental, and Node warns of it. */
  readonly file: string;
  /** What is in there is executed, so it is used only where nobody but root and the user can write. */
  readonly cache: string;
  /** Tells this build of the program from others, whose code must not be taken for its. */
  readonly build: string;
}

/** The function that CommonJS makes of a program's text. */
export type ProgramFunction = (
  exports: object,
  require: NodeJS.Require,
  module: { exports: object },
  filename: string,
  dirname: string,
) => void;

/** A program that was read, and what keeps its code for the next start. */
export interface LoadedProgram {
  readonly run: ProgramFunction;
  /** Whether V8 took the code that was kept. */
  readonly cached: boolean;
  /** Keeps the code of all functions that have run by now, where that is allowed. Never throws. */
  keep(): void;
}

/**
 * Reads a program with V8's compiled code of an earlier run. Node's own cache (module.enableCompileCache) is written before
 * the program runs, and so lacks nearly all of its functions: compiled anew at each start, they are a tenth of it.
 * @throws what reading the program's file throws; without a cache it is compiled as always
 */
export function loadProgram({ file, cache, build }: CachedProgram): LoadedProgram {
  const { size, mtimeMs } = statSync(file);
  const kept = join(cache, `${build}-${process.version}-${process.arch}-${size}-${mtimeMs}.code`);
  const trusted = isTrusted(cache);
  const cachedData = trusted ? readKept(kept) : undefined;
  const head = '(function (exports, require, module, __filename, __dirname) { ';
  const script = new Script(`${head}${readFileSync(file, 'latin1')}\n})`, {
    filename: file,
    columnOffset: -head.length,
    ...(cachedData === undefined ? {} : { cachedData }),
  });
  return {
    run: script.runInThisContext() as ProgramFunction,
    cached: cachedData !== undefined && script.cachedDataRejected === false,
    keep() {
      if (!trusted) return;
      try {
        const unfinished = `${kept}.${process.pid}`;
        writeFileSync(unfinished, script.createCachedData(), { mode: 0o600, flag: 'wx' });
        renameSync(unfinished, kept);
      } catch {
        // Slower, and still right.
      }
    },
  };
}

/** A folder of root's or ours that no other can write. */
export function isTrusted(folder: string): boolean {
  try {
    const { uid, mode } = statSync(folder);
    return (uid === 0 || uid === process.getuid?.()) && (mode & 0o022) === 0;
  } catch {
    return false;
  }
}

function readKept(path: string): Buffer | undefined {
  try {
    return readFileSync(path);
  } catch {
    return undefined;
  }
}
