// Our shim under its own name, with the OCI runtime of the configuration.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { importImage, runtime, stack } from '../support/stack.ts';
import { verbs } from './verbs.ts';

const folder = mkdtempSync(join(stack.state, 'data/tmp/verbs-'));
const options = join(folder, 'options.toml');

before(async () => {
  await importImage();
  writeFileSync(options, '');
});
after(() => rmSync(folder, { recursive: true }));

verbs(['--runtime', runtime], ['--runtime', runtime, '--runtime-config-path', options]);
