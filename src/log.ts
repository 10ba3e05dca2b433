export const levels = ['error', 'warn', 'info', 'debug', 'trace'] as const;
export type Level = (typeof levels)[number];

/** Structured log lines in the form containerd's own shims use (logfmt), so that one reader serves both. */
export interface Logger {
  error(message: string, fields?: Fields): void;
  warn(message: string, fields?: Fields): void;
  info(message: string, fields?: Fields): void;
  debug(message: string, fields?: Fields): void;
  trace(message: string, fields?: Fields): void;
  /** A logger that adds the given fields to each line. */
  with(fields: Fields): Logger;
}
export type Fields = Record<string, string | number | bigint | boolean | undefined>;

/**
 * A logger that hands whole lines (newline included) to `write`, down to the given level; a function is asked for the
 * level each time.
 */
export function createLogger(
  write: (line: string, level: Level) => void,
  level: Level | (() => Level) = 'info',
  base: Fields = {},
): Logger {
  const limit = (): number => levels.indexOf(typeof level === 'function' ? level() : level);
  const at =
    (name: Level) =>
    (message: string, fields: Fields = {}): void => {
      if (levels.indexOf(name) > limit()) return;
      const all = { ...base, ...fields };
      const pairs = Object.entries(all)
        .filter(([, value]) => value !== undefined)
        .map(([key, value]) => ` ${key}=${quote(String(value))}`);
      write(
        `time=${quote(new Date().toISOString())} level=${name} msg=${quote(message)}${pairs.join('')}\n`,
        name,
      );
    };
  return {
    error: at('error'),
    warn: at('warn'),
    info: at('info'),
    debug: at('debug'),
    trace: at('trace'),
    with: (fields) => createLogger(write, level, { ...base, ...fields }),
  };
}

/** A logger that drops everything. */
export const silent: Logger = createLogger(() => undefined, 'error');

function quote(value: string): string {
  return /^[\w.:/@+-]+$/.test(value) ? value : JSON.stringify(value);
}
