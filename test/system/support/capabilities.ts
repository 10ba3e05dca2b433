import { readFileSync } from 'node:fs';

/** Whether this host's root has no CAP_SYS_RESOURCE, as inside another container: capabilities(7). */
export function lacksSysResource(): boolean {
  const capabilities = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0';
  return ((BigInt(`0x${capabilities}`) >> 24n) & 1n) === 0n;
}
