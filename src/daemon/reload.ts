import type { Config } from '../config/config.ts';
import { eachKey } from '../config/schema.ts';

/** What a new configuration changed: keys that count from now on, and those that need a restart. */
export interface Changes {
  readonly applied: string[];
  readonly pending: string[];
}

/** Takes over those keys of `next` that may change while stasisd runs; the schema says which. */
export function applyChanges(config: Config, next: Config): Changes {
  const changes: Changes = { applied: [], pending: [] };
  const [now, then] = [config, next] as unknown as Record<string, Record<string, unknown>>[];
  for (const { section, name, path, key } of eachKey()) {
    const [target, value] = [now?.[section], then?.[section]?.[name]];
    if (target === undefined || target[name] === value || key.effect === 'shim') continue;
    if (key.effect !== 'reload') changes.pending.push(path);
    else {
      target[name] = value;
      changes.applied.push(path);
    }
  }
  return changes;
}
