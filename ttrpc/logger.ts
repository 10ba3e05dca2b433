// What the library tells of itself.

/** Where the library reports what no caller can be told. Each line has a text and fields. */
export interface Logger {
  debug(message: string, fields: Readonly<Record<string, unknown>>): void;
  warn(message: string, fields: Readonly<Record<string, unknown>>): void;
}

export const SILENT: Logger = { debug: () => undefined, warn: () => undefined };
