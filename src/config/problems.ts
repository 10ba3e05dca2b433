import { isDataset } from '../zfs/names.ts';
import { type Key, sections } from './schema.ts';

/** Something in a configuration file that is not understood. */
export interface Problem {
  /** Section, or section and key. */
  readonly path: readonly string[];
  readonly message: string;
  readonly remedy: string;
}

/** Everything in a parsed document that the schema does not allow, in the document's order. */
export function findProblems(document: Readonly<Record<string, unknown>>): Problem[] {
  return Object.entries(document).flatMap(([section, values]) => {
    const known = sections.get(section);
    if (known === undefined) return [unknown([section], [...sections.keys()])];
    if (!isTable(values)) {
      return [{ path: [section], message: `${section} must be a table`, remedy: `write [${section}]` }];
    }
    return Object.entries(values).flatMap(([name, value]) => {
      const path = [section, name];
      const key = Object.hasOwn(known.keys, name) ? known.keys[name] : undefined;
      if (key === undefined) return [unknown(path, Object.keys(known.keys))];
      const wish = wrong(key, value);
      if (wish === undefined) return [];
      const dotted = path.join('.');
      return [
        {
          path,
          message: `${dotted} must be ${wish}, not ${show(value)}`,
          remedy: `correct ${dotted}, or remove it for its default ${JSON.stringify(key.default)}`,
        },
      ];
    });
  });
}

/** What a value must be, if it is not that. */
function wrong(key: Key, value: unknown): string | undefined {
  switch (key.type) {
    case 'choice':
      return key.choices.some((one) => one === value) ? undefined : `one of ${key.choices.join(', ')}`;
    case 'number': {
      const kind = key.fraction === true ? 'a number' : 'a whole number';
      if (typeof value !== 'number') return `${kind} of ${key.unit}`;
      const fits = value >= key.min && value <= key.max && (key.fraction === true || Number.isInteger(value));
      return fits ? undefined : `${kind} of ${key.unit} from ${key.min} to ${key.max}`;
    }
    case 'string': {
      if (typeof value !== 'string') return 'a string';
      // The operating system ends paths and arguments at a NUL.
      if (value.includes('\0')) return 'a string without NUL';
      if (value === '' && key.empty === undefined) return 'a string that is not empty';
      if (key.absolute === true && value !== '' && !value.startsWith('/')) return 'an absolute path';
      if (key.dataset === true && value !== '' && !isDataset(value))
        return "a dataset's name, such as tank/stasis";
      return undefined;
    }
  }
}

function unknown(path: readonly string[], known: readonly string[]): Problem {
  const dotted = path.join('.');
  const close = nearest(path.at(-1) ?? '', known);
  return {
    path,
    message: `unknown key ${dotted}; known here: ${known.join(', ')}`,
    remedy:
      close === undefined ? `remove ${dotted}` : `did you mean ${[...path.slice(0, -1), close].join('.')}?`,
  };
}

/** The known name that takes the fewest changes, if that is at most a third of its letters. */
function nearest(name: string, known: readonly string[]): string | undefined {
  const [best] = known
    .map((one) => ({ one, changes: distance(name, one) }))
    .sort((a, b) => a.changes - b.changes);
  return best !== undefined && best.changes <= best.one.length / 3 ? best.one : undefined;
}

/** Levenshtein's distance. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (const [i, left] of [...a].entries()) {
    const next = [i + 1];
    for (const [j, right] of [...b].entries()) {
      next.push(
        Math.min((row[j] ?? 0) + (left === right ? 0 : 1), (row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1),
      );
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

function show(value: unknown): string {
  if (typeof value === 'bigint') return String(value);
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 57)}…` : text;
}

/** The value that a checked document gives a key, or undefined. */
export function valueOf(
  document: Readonly<Record<string, unknown>>,
  section: string,
  name: string,
): string | number | undefined {
  const values = Object.hasOwn(document, section) ? document[section] : undefined;
  if (!isTable(values) || !Object.hasOwn(values, name)) return undefined;
  const value = values[name];
  return typeof value === 'string' || typeof value === 'number' ? value : undefined;
}
