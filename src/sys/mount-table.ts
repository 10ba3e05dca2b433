import { readFile } from 'node:fs/promises';

export interface MountEntry {
  /** By which /proc/PID/fdinfo names it. */
  readonly id: number;
  /** What is mounted: for ZFS, the dataset's name when it was mounted (zfs-fuse) or now (the kernel module). */
  readonly source: string;
  readonly type: string;
  /** The part of that file system that is mounted: `/` unless it is a bind of something below. */
  readonly root: string;
  readonly target: string;
  /** `major:minor` of the file system, as st_dev says. */
  readonly device: string;
  /** Options of the file system itself, comma-separated. */
  readonly superOptions: string;
}

/** Every mount that this process sees, in the order they were made; proc_pid_mountinfo(5). */
export async function readMountTable(path = '/proc/self/mountinfo'): Promise<MountEntry[]> {
  return parseMountTable(await readFile(path, 'utf8'));
}

export function parseMountTable(text: string): MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of text.split('\n')) {
    const fields = line.split(' ');
    const dash = fields.indexOf('-', 6); // optional fields end with a lone dash
    const [device, root, target] = fields.slice(2, 5);
    const [type, source, superOptions = ''] = fields.slice(dash + 1);
    if (dash < 0 || device === undefined || root === undefined || target === undefined) continue;
    if (type === undefined || source === undefined) continue;
    entries.push({
      ...{ id: Number(fields[0]), type, device, superOptions },
      source: unescape(source),
      root: unescape(root),
      target: unescape(target),
    });
  }
  return entries;
}

/** Spaces, tabs, newlines and backslashes stand as three octal digits. */
function unescape(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(parseInt(digits, 8)));
}
