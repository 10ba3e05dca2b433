import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { stack, until } from './stack.ts';

/** Folders that memory is dumped to, or kept in for the next restore. Those of what was may be on their way out. */
export function staging(): ReadonlySet<string> {
  return new Set(readdirSync(join(stack.state, 'run/staging')));
}

/** Those that were not there before. */
export function newStages(before: ReadonlySet<string>): string[] {
  return [...staging()].filter((name) => !before.has(name));
}

/** Resolves when a dump has begun since the call. */
export function dumpBegun(): Promise<unknown> {
  const before = staging();
  return until('a dump to begin', () => (newStages(before).length > 0 ? true : undefined));
}
