import { BLOCK, paddingAfter, type TarEntry, type TarType } from './entry.ts';
import { checksumOf, field, fitsOctal, type Field, TYPE_OFFSET, writeNumber, writeText } from './fields.ts';
import { encodePax, formatPaxTime, XATTR_PREFIX } from './pax.ts';

const flags: Readonly<Record<TarType, string>> = {
  file: '0',
  link: '1',
  symlink: '2',
  character: '3',
  block: '4',
  directory: '5',
  fifo: '6',
};

/** Two blocks of zeros end an archive. */
export const END_OF_ARCHIVE = Buffer.alloc(2 * BLOCK);

/**
 * The header of an entry, whose content and `padding` follow: one ustar block, after an extended header where
 * something does not fit into that. Where an entry needs nothing that containerd's own writer leaves out (it has no
 * attributes but capabilities, and whole seconds), the bytes are those that it writes.
 */
export function encodeEntry(entry: TarEntry): Buffer {
  const records = recordsFor(entry);
  const main = mainBlock(entry);
  if (records.size === 0) return main;
  const content = encodePax(records);
  return Buffer.concat([
    extendedBlock(entry.name, content.length),
    content,
    Buffer.alloc(paddingAfter(content.length)),
    main,
  ]);
}

/** Zeros that fill the last block of `size` bytes of content. */
export function padding(size: number): Buffer {
  return END_OF_ARCHIVE.subarray(0, paddingAfter(size));
}

function recordsFor(entry: TarEntry): Map<string, Buffer> {
  const records = new Map<string, Buffer>();
  const add = (key: string, value: string): unknown => records.set(key, Buffer.from(value, 'latin1'));
  if (!fitsText(field.name, entry.name)) add('path', entry.name);
  if (!fitsText(field.linkname, entry.linkname)) add('linkpath', entry.linkname);
  if (!fitsOctal(field.uid, entry.uid)) add('uid', String(entry.uid));
  if (!fitsOctal(field.gid, entry.gid)) add('gid', String(entry.gid));
  if (!fitsOctal(field.size, entry.size)) add('size', String(entry.size));
  if (entry.mtime.nanos !== 0 || !fitsOctal(field.mtime, entry.mtime.seconds)) {
    add('mtime', formatPaxTime(entry.mtime));
  }
  for (const [name, value] of entry.xattrs) records.set(XATTR_PREFIX + name, value);
  return records;
}

function fitsText([, length]: Field, text: string): boolean {
  return text.length <= length && ascii(text) === text;
}

function mainBlock(entry: TarEntry): Buffer {
  const block = Buffer.alloc(BLOCK);
  writeText(block, field.name, ascii(entry.name));
  writeNumber(block, field.mode, entry.mode);
  writeNumber(block, field.uid, entry.uid);
  writeNumber(block, field.gid, entry.gid);
  writeNumber(block, field.size, entry.type === 'file' ? entry.size : 0);
  writeNumber(block, field.mtime, entry.mtime.seconds);
  writeText(block, field.linkname, ascii(entry.linkname));
  writeNumber(block, field.major, entry.major);
  writeNumber(block, field.minor, entry.minor);
  return sealed(block, flags[entry.type]);
}

function extendedBlock(name: string, size: number): Buffer {
  const block = Buffer.alloc(BLOCK);
  const parts = name.split('/').filter((part) => part !== '' && part !== '.');
  const own = parts.pop() ?? '.';
  const text = ascii([...parts, 'PaxHeaders.0', own].join('/')).slice(0, field.name[1]);
  writeText(block, field.name, text.replace(/\/+$/, ''));
  for (const at of [field.mode, field.uid, field.gid, field.mtime]) writeNumber(block, at, 0);
  writeNumber(block, field.size, size);
  return sealed(block, 'x');
}

function sealed(block: Buffer, flag: string): Buffer {
  block.write(flag, TYPE_OFFSET, 'latin1');
  block.write('ustar\x0000', field.magic[0], 'latin1');
  block.write(`${checksumOf(block).toString(8).padStart(6, '0')}\0 `, field.checksum[0], 'latin1');
  return block;
}

/** Without NULs and what lies beyond ASCII. */
function ascii(text: string): string {
  return [...text].filter((unit) => unit > '\0' && unit < '\x80').join('');
}
