import { InvalidArgument } from '../src/errors.ts';
import type { Snapshot } from './snapshot.ts';

/**
 * containerd's filter expressions: `field[.field][op value]` with `==`, `!=` and `~=`, joined by commas (all must
 * hold); of several expressions one must. Fields are name, parent, kind and labels; a field or value may be
 * quoted. The grammar is that of containerd's pkg/filters.
 * @returns a test for snapshots; true for all where no expression is given
 * @throws InvalidArgument naming the expression and where it went wrong
 */
export function compileFilters(expressions: readonly string[]): (snapshot: Snapshot) => boolean {
  if (expressions.length === 0) return () => true;
  const filters = expressions.map((expression) => new Parser(expression).filter());
  return (snapshot) => filters.some((selectors) => selectors.every((selector) => selector(snapshot)));
}

type Selector = (snapshot: Snapshot) => boolean;

class Parser {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  filter(): Selector[] {
    if (this.#text === '') return [];
    const selectors: Selector[] = [];
    for (;;) {
      selectors.push(this.#selector());
      if (this.#at >= this.#text.length) return selectors;
      if (!this.#take(',')) throw this.#wrong('expected a comma');
    }
  }

  #selector(): Selector {
    const path = [this.#field()];
    while (this.#take('.')) path.push(this.#field());
    const operator = ['==', '!=', '~='].find((candidate) => this.#take(candidate));
    if (operator === undefined) return (snapshot) => isPresent(snapshot, path);
    const value = this.#value(operator === '~=');
    if (operator === '==') return (snapshot) => valueAt(snapshot, path) === value;
    if (operator === '!=') return (snapshot) => (valueAt(snapshot, path) ?? '') !== value;
    let pattern: RegExp;
    try {
      pattern = new RegExp(value, 'u');
    } catch {
      throw this.#wrong(`${JSON.stringify(value)} is not a regular expression`);
    }
    return (snapshot) => pattern.test(valueAt(snapshot, path) ?? '');
  }

  #field(): string {
    return (
      this.#quoted(false) ?? this.#match(/[A-Za-z0-9_][A-Za-z0-9_-]*/y) ?? this.#fail('expected a field')
    );
  }

  #value(regular: boolean): string {
    return this.#quoted(regular) ?? this.#match(/[^\s,"]+/y) ?? this.#fail('expected a value');
  }

  /** Double quotes with Go's escapes; regular expressions may also stand between slashes or bars. */
  #quoted(regular: boolean): string | undefined {
    const quote = this.#text[this.#at];
    if (quote !== '"' && !(regular && (quote === '/' || quote === '|'))) return undefined;
    for (let end = this.#at + 1; end < this.#text.length; end++) {
      if (this.#text[end] === '\\') end++;
      else if (this.#text[end] === quote) {
        const raw = this.#text.slice(this.#at + 1, end);
        this.#at = end + 1;
        return quote === '"' ? this.#unquote(raw) : raw.replaceAll(`\\${quote}`, quote);
      }
    }
    return this.#fail('a quote is not closed');
  }

  #unquote(raw: string): string {
    const simple: Record<string, string> = {
      n: '\n',
      t: '\t',
      r: '\r',
      a: '\x07',
      b: '\b',
      f: '\f',
      v: '\v',
    };
    return raw.replace(
      /\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|[\s\S])/g,
      (_, escape: string) => {
        if (escape.length > 1) {
          const octal = /^[0-7]/.test(escape);
          return String.fromCodePoint(parseInt(octal ? escape : escape.slice(1), octal ? 8 : 16));
        }
        return simple[escape] ?? escape;
      },
    );
  }

  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0];
    if (found !== undefined) this.#at += found.length;
    return found;
  }

  #take(text: string): boolean {
    if (!this.#text.startsWith(text, this.#at)) return false;
    this.#at += text.length;
    return true;
  }

  #fail(why: string): never {
    throw this.#wrong(why);
  }

  #wrong(why: string): InvalidArgument {
    return new InvalidArgument(`filter ${JSON.stringify(this.#text)}: ${why} at position ${this.#at}`, {
      subject: this.#text,
    });
  }
}

/** A snapshot's field as filters see it: absent where it has none. */
function valueAt(snapshot: Snapshot, path: readonly string[]): string | undefined {
  const [field, ...rest] = path;
  if (field === 'labels') {
    const label = rest.join('.');
    return Object.hasOwn(snapshot.labels, label) ? snapshot.labels[label] : undefined;
  }
  if (rest.length > 0) return undefined;
  // An empty parent is a value: containerd asks for the layers of no parent with `parent==""`.
  const fields: Record<string, string> = {
    name: snapshot.name,
    parent: snapshot.parent,
    kind: snapshot.kind,
  };
  return Object.hasOwn(fields, field ?? '') ? fields[field ?? ''] : undefined;
}

/** A snapshot without a parent has none, though its parent equals the empty one. */
function isPresent(snapshot: Snapshot, path: readonly string[]): boolean {
  const value = valueAt(snapshot, path);
  return path[0] === 'labels' ? value !== undefined : value !== undefined && value !== '';
}
