import { InvalidArgument } from '../errors.ts';
import { BLOCK, paddingAfter, type Stretch, type TarEntry } from './entry.ts';
import { decodeHeader, type Header, isEnd, PendingHeaders } from './header.ts';
import { blockStretches, checkStretches, contentStretches } from './sparse.ts';

export type TarEvent =
  | { readonly kind: 'entry'; readonly entry: TarEntry }
  /** Content of the entry before, at its place in the unpacked file. */
  | { readonly kind: 'data'; readonly offset: number; readonly bytes: Buffer }
  /** All content of the entry before has come. Comes after every entry. */
  | { readonly kind: 'done' };

/** Long names, extended headers, lists of stretches: more than anything real, less than what would hurt. */
const MAX_SPECIAL = 1024 * 1024;

/**
 * Takes an archive apart: ustar, PAX, GNU and old v7, sparse files of every form. Pure: bytes in, events out, in any
 * portions; no byte of content is copied or kept.
 *
 * What follows the archive's end is ignored, as other readers do: some tools leave more there.
 */
export class TarReader {
  #state: 'header' | 'special' | 'stretches' | 'list' | 'content' | 'padding' | 'end' = 'header';
  /** Bytes that do not make a whole unit yet. */
  #kept: Buffer = Buffer.alloc(0);
  readonly #pending = new PendingHeaders();
  #header: Header | undefined;
  /** Stored bytes of the present entry still to come, and then of its padding. */
  #left = 0;
  #padding = 0;
  #stretches: Stretch[] = [];
  /** The stretch that the next byte belongs to, and where in it. */
  #stretch = 0;
  #within = 0;

  /** @throws InvalidArgument where this is no archive */
  push(chunk: Buffer): TarEvent[] {
    const events: TarEvent[] = [];
    let bytes = this.#kept.length === 0 ? chunk : Buffer.concat([this.#kept, chunk]);
    for (;;) {
      const rest = this.#step(bytes, events);
      if (rest === undefined) break;
      bytes = rest;
    }
    this.#kept = this.#state === 'end' ? Buffer.alloc(0) : Buffer.from(bytes);
    return events;
  }

  /** Says that no more bytes come. @throws InvalidArgument where the archive is cut off */
  end(): void {
    const whole = this.#state === 'end' || (this.#state === 'header' && this.#kept.length === 0);
    if (!whole || this.#pending.any) throw new InvalidArgument('the tar archive is cut off');
  }

  /** Takes one unit; answers what is left, or undefined where more bytes are needed first. */
  #step(bytes: Buffer, events: TarEvent[]): Buffer | undefined {
    switch (this.#state) {
      case 'end':
        return undefined;
      case 'header':
        return bytes.length < BLOCK ? undefined : this.#takeHeader(bytes, events);
      case 'special': {
        const size = this.#left + paddingAfter(this.#left);
        if (bytes.length < size) return undefined;
        this.#pending.add(this.#header as Header, bytes.subarray(0, this.#left));
        this.#state = 'header';
        return bytes.subarray(size);
      }
      case 'stretches': {
        if (bytes.length < BLOCK) return undefined;
        const { stretches, more } = blockStretches(bytes.subarray(0, BLOCK));
        this.#stretches.push(...stretches);
        if (this.#stretches.length * 24 > MAX_SPECIAL) throw tooLarge();
        if (!more) this.#begin(events, this.#stretches);
        return bytes.subarray(BLOCK);
      }
      case 'list': {
        const found = contentStretches(bytes.subarray(0, this.#left));
        if (found === undefined) {
          if (bytes.length >= Math.min(this.#left, MAX_SPECIAL)) throw tooLarge();
          return undefined;
        }
        this.#left -= found.bytes;
        this.#begin(events, found.stretches);
        return bytes.subarray(found.bytes);
      }
      case 'content':
        return bytes.length === 0 ? undefined : this.#takeContent(bytes, events);
      case 'padding': {
        if (bytes.length < this.#padding) return undefined;
        this.#state = 'header';
        return bytes.subarray(this.#padding);
      }
    }
  }

  #takeHeader(bytes: Buffer, events: TarEvent[]): Buffer {
    const block = bytes.subarray(0, BLOCK);
    const rest = bytes.subarray(BLOCK);
    if (isEnd(block)) {
      // One block of zeros is the end for those who write only one, and for those who are cut off after it.
      this.#state = 'end';
      return rest;
    }
    const header = decodeHeader(block, this.#pending);
    this.#header = header;
    this.#left = header.stored;
    this.#padding = paddingAfter(header.stored);
    if (header.special !== undefined) {
      if (header.stored > MAX_SPECIAL) throw tooLarge();
      this.#state = 'special';
    } else if (header.listFollows) {
      this.#state = 'list';
    } else if (header.moreStretches) {
      this.#stretches = [...(header.stretches ?? [])];
      this.#state = 'stretches';
    } else {
      this.#begin(events, header.stretches);
    }
    return rest;
  }

  #begin(events: TarEvent[], stretches: readonly Stretch[] | undefined): void {
    const { entry } = this.#header as Header;
    if (stretches !== undefined) checkStretches(stretches, this.#left, entry.size);
    events.push({ kind: 'entry', entry: stretches === undefined ? entry : { ...entry, stretches } });
    this.#stretches = [...(stretches ?? [{ offset: 0, length: this.#left }])];
    this.#stretch = 0;
    this.#within = 0;
    this.#state = 'content';
    if (this.#left === 0) this.#finish(events);
  }

  #takeContent(bytes: Buffer, events: TarEvent[]): Buffer {
    const stretch = this.#stretches[this.#stretch];
    if (stretch === undefined) throw new InvalidArgument('a sparse file of the tar archive is too long');
    const take = Math.min(bytes.length, stretch.length - this.#within);
    if (take > 0) {
      events.push({ kind: 'data', offset: stretch.offset + this.#within, bytes: bytes.subarray(0, take) });
    }
    this.#within += take;
    this.#left -= take;
    if (this.#within === stretch.length) {
      this.#stretch++;
      this.#within = 0;
    }
    if (this.#left === 0) this.#finish(events);
    return bytes.subarray(take);
  }

  #finish(events: TarEvent[]): void {
    events.push({ kind: 'done' });
    this.#state = this.#padding === 0 ? 'header' : 'padding';
  }
}

function tooLarge(): InvalidArgument {
  return new InvalidArgument(`the tar archive has an extended header of more than ${MAX_SPECIAL} bytes`);
}
