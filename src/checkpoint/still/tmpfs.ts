import { lstatSync, statSync } from 'node:fs';
import { deviceOf } from '../../criu/tmpfs.ts';
import type { MountEntry } from '../../sys/mount-table.ts';
import { Doubt, list } from './text.ts';

/** More files than this are not looked at: CRIU packs a tmpfs whole, and so might as well do so again. */
const MOST = 500;

/**
 * What is in the tmpfs mounts of a container: names, sizes and times of change. Their content is in CRIU's image, and may be
 * changed from outside, through /proc/PID/root, by a copy into the container.
 * @throws Doubt where there is more than can be looked at
 */
export function tmpfsContents(pid: number, table: readonly MountEntry[]): string {
  const lines: string[] = [];
  for (const { target, device, root, type } of table) {
    if (type !== 'tmpfs') continue;
    const folder = `/proc/${pid}/root${target}`;
    const found = statSync(folder);
    // Another mount lies over it, or it is one file that is bound there.
    if (deviceOf(found.dev) !== device || !found.isDirectory()) continue;
    lines.push(`${target} ${root} ${found.ctimeMs}`);
    walk(folder, found.dev, lines);
  }
  return lines.join('\n');
}

function walk(folder: string, device: number, lines: string[]): void {
  for (const name of list(folder)) {
    if (lines.length > MOST) throw new Doubt('its tmpfs mounts hold many files');
    const path = `${folder}/${name}`;
    const found = lstatSync(path, { bigint: true });
    if (Number(found.dev) !== device) continue;
    lines.push(`${path} ${found.ino} ${found.mode} ${found.size} ${found.mtimeNs} ${found.ctimeNs}`);
    if (found.isDirectory()) walk(path, device, lines);
  }
}
