import type { Property, PropertySource, Row } from './zfs.ts';

/** How a line ends that says what a dataset does not have. */
const NONE = '\t-\t-';

/**
 * Reads the output of `zfs get -H -o name,property,value,source` as it comes, of any length: a pool with tens of
 * thousands of snapshots answers with more text than a process should hold at once. All of a dataset's lines follow each
 * other.
 */
export class RowReader {
  readonly #types: ReadonlySet<string>;
  readonly #decoder = new TextDecoder();
  readonly #rows: Row[] = [];
  readonly #names = new Map<string, string>();
  #rest = '';
  #name: string | undefined;
  #properties = new Map<string, Property>();

  /** @param types the types of rows to keep */
  constructor(types: ReadonlySet<string>) {
    this.#types = types;
  }

  push(chunk: Uint8Array): void {
    const text = this.#rest + this.#decoder.decode(chunk, { stream: true });
    let from = 0;
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n', from)) {
      this.#line(text.slice(from, end));
      from = end + 1;
    }
    this.#rest = text.slice(from);
  }

  /** The rows, once all of the output is here. */
  end(): Row[] {
    this.#line(this.#rest);
    this.#rest = '';
    return this.#rows;
  }

  #line(line: string): void {
    const [first, second, third] = tabs(line);
    if (third === undefined || first === undefined || second === undefined) return;
    if (this.#name === undefined || first !== this.#name.length || !line.startsWith(this.#name)) {
      this.#begin(line.slice(0, first));
    }
    // ZFS's way to say that there is none: most lines of a large listing.
    if (line.endsWith(NONE)) return;
    const property = line.slice(first + 1, second);
    if (property === 'type') return;
    const source = sourceOf(line.slice(third + 1));
    this.#properties.set(this.#shared(property), { value: apart(line.slice(second + 1, third)), source });
  }

  #begin(dataset: string): void {
    this.#name = apart(dataset);
    this.#properties = new Map();
    const type = dataset.includes('@') ? 'snapshot' : 'filesystem';
    if (this.#types.has(type)) this.#rows.push({ name: this.#name, type, properties: this.#properties });
  }

  /** One string for all mentions of a property. */
  #shared(property: string): string {
    const known = this.#names.get(property);
    if (known !== undefined) return known;
    const name = apart(property);
    this.#names.set(name, name);
    return name;
  }
}

/** Where a line's columns end: three places, or fewer where the line is not one of ours. */
function tabs(line: string): (number | undefined)[] {
  const places: number[] = [];
  for (let at = line.indexOf('\t'); at >= 0 && places.length < 3; at = line.indexOf('\t', at + 1))
    places.push(at);
  return places;
}

/** A copy: a part of a string would keep the whole of the output in memory for as long as the index lives. */
function apart(text: string): string {
  return Buffer.from(text, 'utf8').toString('utf8');
}

function sourceOf(text: string): PropertySource {
  if (text === '-') return 'none';
  if (text.startsWith('inherited from ')) return 'inherited';
  return text === 'local' || text === 'received' || text === 'default' || text === 'temporary'
    ? text
    : 'none';
}
