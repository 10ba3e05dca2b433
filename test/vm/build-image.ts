// Makes the test image on the host, where it takes a second and not a minute: scripts/node test/vm/build-image.ts FILE
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildImage } from '../system/support/image.ts';

const [file] = process.argv.slice(2);
if (file === undefined) throw new Error('name the file to write');
const folder = mkdtempSync(join(tmpdir(), 'stasis-image-'));
try {
  buildImage(file, folder);
} finally {
  rmSync(folder, { recursive: true });
}
