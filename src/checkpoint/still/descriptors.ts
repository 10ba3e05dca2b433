import { closeSync, constants, openSync, statSync } from 'node:fs';
import { bytesWaiting } from '../../sys/waiting.ts';
import { Doubt, link, list, read } from './text.ts';

/** Kinds whose whole state is in /proc/PID/fdinfo, or that have none. */
const plainKinds = new Set(['[eventfd]', '[eventpoll]', '[signalfd]']);

/** Major numbers of character devices that hold nothing: memory (null, zero, random…), admin-guide/devices.rst. */
const MEMORY_DEVICES = 1;

/**
 * The open files of a process, each with what /proc/PID/fdinfo says of it: position, flags, locks, an eventfd's count.
 * @throws Doubt for a pipe that is not empty, and for what a change from outside would not be seen of: terminals, timers, inotify…
 */
export function descriptorsOf(pid: number): string {
  const lines: string[] = [];
  for (const fd of list(`/proc/${pid}/fd`)) {
    const path = `/proc/${pid}/fd/${fd}`;
    const target = link(path);
    const info = read(`/proc/${pid}/fdinfo/${fd}`);
    lines.push(`${fd} ${target}\n${info}`);
    if (target.startsWith('socket:')) continue;
    const kind = /^anon_inode:(.*)$/.exec(target)?.[1];
    if (kind !== undefined) {
      if (!plainKinds.has(kind)) throw new Doubt(`it has a descriptor of the kind ${kind}`);
      continue;
    }
    const found = statSync(path, { bigint: true });
    if (found.isFIFO()) {
      if (holdsBytes(path)) throw new Doubt('something waits in a pipe');
    } else if (found.isCharacterDevice()) {
      if (Number((found.rdev >> 8n) & 0xfffn) !== MEMORY_DEVICES) throw new Doubt(`it has opened ${target}`);
    } else if (!found.isFile() && !found.isDirectory()) {
      throw new Doubt(`it has opened ${target}`);
    } else {
      lines.push(`${found.dev} ${found.ino} ${found.size} ${found.nlink}`);
    }
  }
  return lines.join('\n');
}

/** Opened anew through /proc, which waits for nobody and takes nothing out. */
function holdsBytes(path: string): boolean {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    return bytesWaiting(fd) > 0;
  } finally {
    closeSync(fd);
  }
}
