/**
 * Finds the line of every table and key in a TOML document. smol-toml, which reads the values, keeps no positions, and
 * the parsers that do are many times larger than all that the shim needs of a configuration. This one relies on the text being
 * valid TOML already: it only has to step over strings, comments, arrays and inline tables.
 */

/** Line numbers, from 1, by path: the parts of a key joined with NUL, which TOML does not allow in a key. */
export type Lines = ReadonlyMap<string, number>;

export function linePath(...parts: string[]): string {
  return parts.join('\0');
}

/** The line of each table header and each key of a valid document; of what is there several times, the first. */
export function findLines(text: string): Lines {
  const scanner = new Scanner(text);
  const lines = new Map<string, number>();
  const note = (parts: readonly string[], line: number): void => {
    for (let length = 1; length <= parts.length; length++) {
      const path = linePath(...parts.slice(0, length));
      if (!lines.has(path)) lines.set(path, line);
    }
  };
  let table: readonly string[] = [];
  while (scanner.toNextItem()) {
    const { line } = scanner;
    if (scanner.take('[')) {
      scanner.take('[');
      table = scanner.key();
      note(table, line);
      scanner.toLineEnd();
    } else {
      const key = scanner.key();
      scanner.take('=');
      note([...table, ...key], line);
      scanner.value([...table, ...key], note);
    }
  }
  return lines;
}

class Scanner {
  readonly #text: string;
  #at = 0;
  line = 1;

  constructor(text: string) {
    this.#text = text;
  }

  /** Over blanks, empty lines and comments; false at the end. */
  toNextItem(): boolean {
    for (;;) {
      const char = this.#text[this.#at];
      if (char === undefined) return false;
      if (char === '#') this.toLineEnd();
      else if (/\s|\uFEFF/.test(char)) this.#step();
      else return true;
    }
  }

  take(char: string): boolean {
    this.#blanks();
    if (this.#text[this.#at] !== char) return false;
    this.#step();
    return true;
  }

  toLineEnd(): void {
    while (this.#at < this.#text.length && this.#text[this.#at] !== '\n') this.#step();
  }

  /** A dotted key: bare and quoted parts. */
  key(): string[] {
    const parts: string[] = [];
    do {
      this.#blanks();
      const quote = this.#text[this.#at];
      if (quote === '"' || quote === "'") {
        parts.push(this.#string());
        continue;
      }
      const start = this.#at;
      while (/[\w-]/.test(this.#text[this.#at] ?? '')) this.#step();
      if (this.#at === start) this.#step(); // not valid TOML: go on, whatever it is
      parts.push(this.#text.slice(start, this.#at));
    } while (this.take('.'));
    return parts;
  }

  /** Steps over a value; keys in inline tables are noted too. */
  value(path: readonly string[], note: (path: readonly string[], line: number) => void): void {
    this.#blanks();
    const char = this.#text[this.#at];
    if (char === '"' || char === "'") this.#string();
    else if (char === '[') this.#list(']', () => this.value([...path, '[]'], () => undefined));
    else if (char === '{') {
      this.#list('}', () => {
        const { line } = this;
        const key = [...path, ...this.key()];
        this.take('=');
        note(key, line);
        this.value(key, note);
      });
    } else while (!/[,\]}#\n]/.test(this.#text[this.#at] ?? '\n')) this.#step();
  }

  #list(end: string, item: () => void): void {
    this.#step();
    while (this.toNextItem()) {
      const char = this.#text[this.#at];
      if (char === end) {
        this.#step();
        return;
      }
      if (char === ',') this.#step();
      else item();
    }
  }

  /** The string's value where it is on one line; of a longer one only the raw text, as it cannot be a key. */
  #string(): string {
    const quote = this.#text[this.#at] ?? '';
    const triple = this.#text.startsWith(quote.repeat(3), this.#at);
    const end = triple ? quote.repeat(3) : quote;
    const start = this.#at;
    for (const _ of end) this.#step();
    while (this.#at < this.#text.length && !this.#text.startsWith(end, this.#at)) {
      if (quote === '"' && this.#text[this.#at] === '\\') this.#step();
      this.#step();
    }
    for (const _ of end) this.#step();
    // A multi-line string may end with up to two quotes of its own before the closing three.
    while (triple && this.#text[this.#at] === quote) this.#step();
    const raw = this.#text.slice(start + end.length, this.#at - end.length);
    return quote === '"' && !triple ? unescape(raw) : raw;
  }

  #blanks(): void {
    while (/[ \t]/.test(this.#text[this.#at] ?? '')) this.#step();
  }

  #step(): void {
    if (this.#text[this.#at] === '\n') this.line++;
    this.#at++;
  }
}

/** TOML's escapes that JSON has too are all that a key of ours could hold. */
function unescape(raw: string): string {
  try {
    return JSON.parse(`"${raw}"`) as string;
  } catch {
    return raw;
  }
}
