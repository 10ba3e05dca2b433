// The configuration of the benchmark's own stack.
import { readFileSync, writeFileSync } from 'node:fs';

/** Lets shims that start meanwhile use another OCI runtime. Those that serve already keep theirs. */
export function withRuntime(name: string, work: () => Promise<void>): Promise<void> {
  return withConfig((text) => text.replace(/^oci = .*$/m, `oci = ${JSON.stringify(name)}`), work);
}

/** Lets shims that start meanwhile be a guard and a worker. */
export function withGuard(work: () => Promise<void>): Promise<void> {
  return withConfig((text) => `${text}\n[shim]\nguard = "on"\n`, work);
}

async function withConfig(change: (text: string) => string, work: () => Promise<void>): Promise<void> {
  const path = process.env['STASIS_CONFIG'] ?? '';
  const before = readFileSync(path, 'utf8');
  writeFileSync(path, change(before));
  try {
    await work();
  } finally {
    writeFileSync(path, before);
  }
}
