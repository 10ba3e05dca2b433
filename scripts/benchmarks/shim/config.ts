// The configuration of the benchmark's own stack.
import { readFileSync, writeFileSync } from 'node:fs';

/** Lets shims that start meanwhile use another OCI runtime. Those that serve already keep theirs. */
export async function withRuntime(name: string, work: () => Promise<void>): Promise<void> {
  const path = process.env['STASIS_CONFIG'] ?? '';
  const before = readFileSync(path, 'utf8');
  writeFileSync(path, before.replace(/^oci = .*$/m, `oci = ${JSON.stringify(name)}`));
  try {
    await work();
  } finally {
    writeFileSync(path, before);
  }
}
