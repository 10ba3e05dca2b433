import { createHash } from 'node:crypto';
import { closeSync, lstatSync, openSync, readlinkSync, readSync, type BigIntStats } from 'node:fs';
import { toBuffer } from '../../../src/sys/bytes.ts';
import { readFolder } from '../../../src/sys/folder.ts';
import { readXattrs } from '../../../src/sys/xattr.ts';

/** What two trees may rightly differ in. */
export interface Described {
  /** Whether times of folders count: making files in them moves those. */
  readonly folderTimes?: boolean;
  /** Whole seconds only: what containerd's own differ keeps. */
  readonly wholeSeconds?: boolean;
  /** Which extended attributes count; all but those that a security module sets by default. */
  readonly attribute?: (name: string) => boolean;
}

/**
 * Everything that can be told of each file below a folder, one line a file: type, mode, owner, size, time, device,
 * target, attributes, content, and which names are one file.
 */
export function describeTree(root: string, options: Described = {}): string[] {
  const lines: { readonly text: string; readonly path: string; readonly inode: bigint }[] = [];
  const names = new Map<bigint, string[]>();
  const walk = (path: string): void => {
    for (const { name } of readFolder(root + path)) {
      const at = `${path}/${name}`;
      const stat = lstatSync(toBuffer(root + at), { bigint: true });
      lines.push({ text: describe(root + at, stat, options), path: at, inode: stat.ino });
      if (stat.isDirectory()) walk(at);
      else names.set(stat.ino, [...(names.get(stat.ino) ?? []), at]);
    }
  };
  walk('');
  // Counted here: overlayfs counts names that a layer above hides.
  return lines.map(({ text, path, inode }) => {
    const [first, ...others] = names.get(inode) ?? [];
    return `${JSON.stringify(path)} ${text}${others.length === 0 ? '' : ` is ${JSON.stringify(first)}`}`;
  });
}

function describe(path: string, stat: BigIntStats, options: Described): string {
  const parts = [`mode ${stat.mode.toString(8)}`, `owner ${stat.uid}:${stat.gid}`];
  if (!stat.isDirectory() || options.folderTimes === true) {
    parts.push(`time ${options.wholeSeconds === true ? stat.mtimeNs / 1_000_000_000n : stat.mtimeNs}`);
  }
  if (stat.isCharacterDevice() || stat.isBlockDevice()) parts.push(`device ${stat.rdev}`);
  if (stat.isSymbolicLink()) parts.push(`to ${JSON.stringify(readlinkSync(toBuffer(path), 'latin1'))}`);
  if (stat.isFile()) parts.push(`size ${stat.size}`, `content ${contentHash(path)}`);
  const counts = options.attribute ?? ((name) => name !== 'security.selinux');
  for (const [name, value] of [...readXattrs(path)].sort()) {
    if (counts(name)) parts.push(`${name}=${value.toString('hex')}`);
  }
  return parts.join(' ');
}

function contentHash(path: string): string {
  const hash = createHash('sha256');
  const buffer = Buffer.alloc(1 << 18);
  const fd = openSync(toBuffer(path), 'r');
  try {
    for (let length: number; (length = readSync(fd, buffer, 0, buffer.length, null)) > 0;) {
      hash.update(buffer.subarray(0, length));
    }
  } finally {
    closeSync(fd);
  }
  return hash.digest('hex').slice(0, 16);
}
