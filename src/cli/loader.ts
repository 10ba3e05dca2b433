// What is started as `stasis`: loads main.ts, which is bundled beside it, with its compiled code.
import { join } from 'node:path';
import { commit, version } from '../version.ts';
import { loadProgram } from './code-cache.ts';

/** Folder of the compiled code, set by the build; empty: beside the program. */
declare const STASIS_CODE_CACHE: string;
/** This bundle's own, as it is CommonJS. */
declare const __dirname: string;
declare const require: NodeJS.Require;

const lib = __dirname;
const file = join(lib, 'stasis-main.cjs');
const program = loadProgram({
  file,
  cache: STASIS_CODE_CACHE || join(lib, 'compile-cache'),
  // V8 takes no code that was compiled under other flags.
  build: [version, commit, ...process.execArgv].join('-').replaceAll(/[^\w.-]/g, ''),
});
const module = { exports: {} as { isWorthKeeping?: () => boolean } };
program.run(module.exports, require, module, file, lib);
if (!program.cached) {
  process.once('exit', () => {
    // A run that did nothing but print its version would leave out what others need.
    if (module.exports.isWorthKeeping?.() === true) program.keep();
  });
}
