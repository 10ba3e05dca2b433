import { parseConfig, parseDocument, readConfig } from './config.ts';
import { findLines, linePath } from './lines.ts';
import { valueOf } from './problems.ts';
import { eachKey, type Key } from './schema.ts';

/** One key as it is in force. */
export interface Setting {
  /** `section.key`. */
  readonly path: string;
  readonly key: Key;
  readonly value: string | number;
  /** `file:line`, or `default`. */
  readonly origin: string;
}

/**
 * Every key with its value and where that comes from, in the schema's order.
 * @throws InvalidArgument as loadConfig does
 */
export function settings(path: string, mustExist: boolean): Setting[] {
  const text = readConfig(path, mustExist) ?? '';
  parseConfig(text, path);
  const document = parseDocument(text, path);
  const lines = findLines(text);
  return eachKey().map(({ section, name, path: dotted, key }) => {
    const value = valueOf(document, section, name);
    if (value === undefined) return { path: dotted, key, value: key.default, origin: 'default' };
    const line = lines.get(linePath(section, name));
    return { path: dotted, key, value, origin: line === undefined ? path : `${path}:${line}` };
  });
}
