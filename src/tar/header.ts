import { InvalidArgument } from '../errors.ts';
import { type Stretch, type TarEntry, type TarType } from './entry.ts';
import { checksumOf, field, readNumber, readText, signedChecksumOf, TYPE_OFFSET } from './fields.ts';
import { decodePax, parsePaxTime, XATTR_PREFIX } from './pax.ts';
import { headerStretches, paxSparse } from './sparse.ts';

/** A header block, with what extended headers before it say. */
export interface Header {
  readonly entry: TarEntry;
  /** Bytes that follow in the archive, up to the padding. */
  readonly stored: number;
  /** Set where this is no file but says something of the next one, or of all. */
  readonly special: 'pax' | 'pax-global' | 'gnu-name' | 'gnu-link' | undefined;
  readonly stretches: readonly Stretch[] | undefined;
  /** Blocks with more stretches follow the header. */
  readonly moreStretches: boolean;
  /** The stored bytes begin with the list of stretches. */
  readonly listFollows: boolean;
}

const types: Readonly<Record<string, TarType>> = {
  '\0': 'file',
  '0': 'file',
  '1': 'link',
  '2': 'symlink',
  '3': 'character',
  '4': 'block',
  '5': 'directory',
  '6': 'fifo',
  '7': 'file',
  S: 'file',
};

const specials: Readonly<Record<string, Header['special']>> = {
  x: 'pax',
  g: 'pax-global',
  L: 'gnu-name',
  K: 'gnu-link',
};

/** What headers that stand before an entry say of it. */
export class PendingHeaders {
  #pax = new Map<string, Buffer[]>();
  #name: string | undefined;
  #link: string | undefined;
  #any = false;

  /** Whether something is known of an entry that has not come. */
  get any(): boolean {
    return this.#any;
  }

  /** @throws InvalidArgument */
  add(header: Header, content: Buffer): void {
    switch (header.special) {
      case 'pax':
        this.#pax = decodePax(content);
        break;
      case 'gnu-name':
        this.#name = upToZero(content);
        break;
      case 'gnu-link':
        this.#link = upToZero(content);
        break;
      case 'pax-global': // containerd does not heed what an archive says of all its entries, and nor do we
      case undefined:
        return;
    }
    this.#any = true;
  }

  /** What holds for the next entry, and for it alone. */
  take(): { records: ReadonlyMap<string, Buffer[]>; name: string | undefined; link: string | undefined } {
    const taken = { records: this.#pax, name: this.#name, link: this.#link };
    this.#pax = new Map();
    this.#name = undefined;
    this.#link = undefined;
    this.#any = false;
    return taken;
  }
}

/** Whether a block is one of zeros: the archive's end. */
export function isEnd(block: Buffer): boolean {
  return block[0] === 0 && !block.some((byte) => byte !== 0);
}

/** @throws InvalidArgument for what is no header, and for types that are no files */
export function decodeHeader(block: Buffer, pending: PendingHeaders): Header {
  const sum = readNumber(block, field.checksum);
  if (sum !== checksumOf(block) && sum !== signedChecksumOf(block)) {
    throw new InvalidArgument('a tar header has a wrong checksum: the archive is damaged, or is none');
  }
  const flag = String.fromCharCode(block[TYPE_OFFSET] ?? 0);
  const special = specials[flag];
  const bare = { stretches: undefined, moreStretches: false, listFollows: false };
  if (special !== undefined) {
    return { ...bare, special, stored: readNumber(block, field.size), entry: plainEntry(block, 'file', '') };
  }
  const type = types[flag];
  const name = nameOf(block);
  if (type === undefined) {
    throw new InvalidArgument(`the tar archive has an entry of type ${JSON.stringify(flag)}: ${name}`, {
      subject: name,
    });
  }
  return withRecords(block, flag, plainEntry(block, type, name), pending.take());
}

function withRecords(
  block: Buffer,
  flag: string,
  plain: TarEntry,
  { records, name, link }: ReturnType<PendingHeaders['take']>,
): Header {
  const get = (key: string): string | undefined => records.get(key)?.at(-1)?.toString('latin1');
  const all = (key: string): string[] => (records.get(key) ?? []).map((value) => value.toString('latin1'));
  const xattrs = new Map<string, Buffer>();
  for (const [key, values] of records) {
    // The record lives in a chunk of the archive, which the attribute outlives.
    const value = values.at(-1);
    if (key.startsWith(XATTR_PREFIX) && value !== undefined) {
      xattrs.set(key.slice(XATTR_PREFIX.length), Buffer.from(value));
    }
  }
  const full = filled(get('GNU.sparse.name')) ?? filled(get('path')) ?? name ?? plain.name;
  // Old archives mark a folder by its name alone.
  const type = plain.type === 'file' && flag !== 'S' && full.endsWith('/') ? 'directory' : plain.type;
  const mtime = get('mtime');
  // What follows is skipped even where the name makes it a folder.
  const stored = plain.type === 'file' ? (number(get('size')) ?? readNumber(block, field.size)) : 0;
  const old = flag === 'S' ? headerStretches(block) : undefined;
  const sparse = old ?? (type === 'file' ? paxSparse(get, all) : undefined);
  const entry: TarEntry = {
    ...plain,
    name: full,
    type,
    uid: number(get('uid')) ?? plain.uid,
    gid: number(get('gid')) ?? plain.gid,
    size: type === 'file' ? (sparse?.realSize ?? stored) : 0,
    mtime: mtime === undefined ? plain.mtime : parsePaxTime(mtime),
    linkname: filled(get('linkpath')) ?? link ?? plain.linkname,
    xattrs,
  };
  return {
    entry,
    stored,
    special: undefined,
    stretches: sparse?.stretches,
    moreStretches: old?.more ?? false,
    listFollows: sparse !== undefined && sparse.stretches === undefined,
  };
}

function plainEntry(block: Buffer, type: TarType, name: string): TarEntry {
  const isDevice = type === 'character' || type === 'block';
  return {
    name,
    type,
    mode: readNumber(block, field.mode) & 0o7777,
    uid: readNumber(block, field.uid),
    gid: readNumber(block, field.gid),
    size: 0,
    mtime: { seconds: readNumber(block, field.mtime), nanos: 0 },
    linkname: readText(block, field.linkname),
    major: isDevice ? readNumber(block, field.major) : 0,
    minor: isDevice ? readNumber(block, field.minor) : 0,
    xattrs: new Map(),
  };
}

function nameOf(block: Buffer): string {
  const name = readText(block, field.name);
  // GNU's own format uses the prefix's place for other things.
  const isPosix = block.toString('latin1', 257, 265) === 'ustar\x0000';
  const prefix = isPosix ? readText(block, field.prefix) : '';
  return prefix === '' ? name : `${prefix}/${name}`;
}

function upToZero(content: Buffer): string {
  const end = content.indexOf(0);
  return content.toString('latin1', 0, end < 0 ? content.length : end);
}

/** An empty record says nothing. */
function filled(text: string | undefined): string | undefined {
  return text === '' ? undefined : text;
}

function number(text: string | undefined): number | undefined {
  if (text === undefined || text === '') return undefined;
  const value = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value)) {
    throw new InvalidArgument(`a tar archive has ${JSON.stringify(text)} for a number`);
  }
  return value;
}
