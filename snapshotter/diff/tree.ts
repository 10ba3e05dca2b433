import {
  lstatSync,
  mkdirSync,
  readdirSync,
  readlinkSync,
  realpathSync,
  rmdirSync,
  type Stats,
  unlinkSync,
} from 'node:fs';
import { posix } from 'node:path';
import { hasErrno, InvalidArgument } from '../../src/errors.ts';
import { readable, toBuffer, type ByteString } from '../../src/sys/bytes.ts';

/** Makes something where nothing may be; what is there is removed first, but for what `keep` accepts. */
export function replacing(
  path: ByteString,
  make: () => unknown,
  keep: (there: Stats) => boolean = () => false,
): void {
  try {
    make();
  } catch (error) {
    if (!hasErrno(error, 'EEXIST')) throw error;
    if (keep(lstatSync(toBuffer(path)))) return;
    removeTree(path);
    make();
  }
}

export function isFolder(there: Stats): boolean {
  return there.isDirectory();
}

/** Removes a file, or a folder with all that is in it; nothing where there is nothing. */
export function removeTree(path: ByteString): void {
  const name = toBuffer(path);
  try {
    unlinkSync(name);
    return;
  } catch (error) {
    if (hasErrno(error, 'ENOENT') || hasErrno(error, 'ENOTDIR')) return;
    if (!hasErrno(error, 'EISDIR') && !hasErrno(error, 'EPERM')) throw error;
  }
  for (const each of readdirSync(name, 'latin1')) removeTree(`${path}/${each}`);
  rmdirSync(name);
}

/** As the kernel has it. */
const MAX_LINKS = 40;

/** Makes a folder and those above it, also where a symbolic link leads to one that is not there. */
export function makeFolders(path: ByteString, links = 0): void {
  if (links > MAX_LINKS) throw new InvalidArgument(`${readable(path)} is a symbolic link to itself`);
  try {
    mkdirSync(toBuffer(path), 0o755);
  } catch (error) {
    const above = path.slice(0, path.lastIndexOf('/'));
    if (hasErrno(error, 'ENOENT') && above !== '') {
      makeFolders(above, links);
      return makeFolders(path, links + 1);
    }
    if (!hasErrno(error, 'EEXIST')) throw error;
    if (!lstatSync(toBuffer(path)).isSymbolicLink()) return;
    const target = readlinkSync(toBuffer(path), 'latin1');
    makeFolders(posix.resolve(above === '' ? '/' : realpath(above), target), links + 1);
  }
}

export function realpath(path: ByteString): ByteString {
  return realpathSync.native(toBuffer(path), 'latin1');
}
