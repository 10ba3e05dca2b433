import type { Property, PropertySource, Row } from './zfs.ts';

/**
 * Reads the output of `zfs get -H -o name,property,value,source` as it comes, of any length: a pool with tens of
 * thousands of snapshots answers with more text than a process should hold at once. All of a dataset's lines follow each
 * other.
 */
export class RowReader {
  readonly #types: ReadonlySet<string>;
  readonly #decoder = new TextDecoder();
  readonly #rows: Row[] = [];
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
    const [dataset, property, value, from] = line.split('\t');
    if (dataset === undefined || property === undefined || value === undefined) return;
    if (dataset !== this.#name) {
      this.#name = dataset;
      this.#properties = new Map();
      const type = dataset.includes('@') ? 'snapshot' : 'filesystem';
      if (this.#types.has(type)) this.#rows.push({ name: dataset, type, properties: this.#properties });
    }
    const source = sourceOf(from ?? '-');
    if (value === '-' && source === 'none') return; // ZFS's way to say that there is none
    if (property !== 'type') this.#properties.set(property, { value, source });
  }
}

function sourceOf(text: string): PropertySource {
  if (text === '-') return 'none';
  if (text.startsWith('inherited from ')) return 'inherited';
  return text === 'local' || text === 'received' || text === 'default' || text === 'temporary'
    ? text
    : 'none';
}
