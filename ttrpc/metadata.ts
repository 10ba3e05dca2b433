// What travels beside a request: keys, each with one or more values.

/** The metadata key under which containerd passes the namespace of a call. */
export const NAMESPACE_KEY = 'containerd-namespace-ttrpc';

export type MetadataInit = Metadata | Readonly<Record<string, string | readonly string[]>>;

/** A list of values for each key. Keys are not case-sensitive, as in the Go library, and kept in lower case. */
export class Metadata {
  readonly #values = new Map<string, string[]>();

  /** Takes what a caller wrote; a Metadata is passed through as it is. */
  static from(init: MetadataInit): Metadata {
    if (init instanceof Metadata) return init;
    const metadata = new Metadata();
    for (const [key, value] of Object.entries(init)) {
      for (const one of typeof value === 'string' ? [value] : value) metadata.append(key, one);
    }
    return metadata;
  }

  /** The first value of a key. */
  get(key: string): string | undefined {
    return this.#values.get(key.toLowerCase())?.[0];
  }

  getAll(key: string): readonly string[] {
    return this.#values.get(key.toLowerCase()) ?? [];
  }

  /** Puts one value in the place of all that the key had. */
  set(key: string, value: string): this {
    this.#values.set(key.toLowerCase(), [value]);
    return this;
  }

  /** Adds a value to those that the key has. */
  append(key: string, value: string): this {
    const lower = key.toLowerCase();
    const values = this.#values.get(lower);
    if (values === undefined) this.#values.set(lower, [value]);
    else values.push(value);
    return this;
  }

  delete(key: string): void {
    this.#values.delete(key.toLowerCase());
  }

  /** Each value with its key; a key that has several comes several times, which is also its form on the wire. */
  *[Symbol.iterator](): Generator<[key: string, value: string]> {
    for (const [key, values] of this.#values) {
      for (const value of values) yield [key, value];
    }
  }
}
