import { existsSync, mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { stack } from '../system/support/stack.ts';

export type Oci = 'runc' | 'crun';

/** The OCI runtime of both sides. */
export const oci: Oci = process.env['STASIS_TEST_OCI'] === 'crun' ? 'crun' : 'runc';

/**
 * Puts crun in runc's place, for both shims alike: a program of that name ahead of all others on the stack's PATH. It stays
 * as long as the stack, since shims remember what they found.
 */
export function installOci(): void {
  const place = join(stack.state, 'drop-in/runc');
  if (oci === 'runc' || existsSync(place)) return;
  mkdirSync(join(stack.state, 'drop-in'), { recursive: true });
  symlinkSync(process.env['STASIS_CRUN'] ?? '', place);
}
