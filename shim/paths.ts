import { createHash } from 'node:crypto';
import { basename, dirname, join } from 'node:path';
import { InvalidArgument } from '../src/errors.ts';

/**
 * Where the shim keeps what must outlive it, below `daemon.run_dir`:
 *
 * | path | what |
 * |---|---|
 * | `s/<hash>` | socket of a shim |
 * | `s/w<hash>`, `s/x<hash>` | those of its workers, where it has a guard |
 * | `s/g<hash>` | where that guard is asked about itself |
 * | `events/<hash>` | the events of such a shim that containerd has not acknowledged |
 * | `exits/<pid>.<start time>` | how processes have ended of which its worker has not come to the end, of the guard with that pid |
 * | `s/c-<random>` | socket at which a terminal's master is awaited |
 * | `resident/<containerd's address>/<namespace>/shim` | `pid starttime socket` of the namespace's shared shim; the launcher reads it |
 * | `resident/<containerd's address>/<namespace>/starting` | locked by the launcher that is starting that shim |
 * | `locks/<hash>` | held by a living shim with flock(2) |
 * | `locks/clear-<namespace>` | held by whoever clears away what a dead shim of the namespace left |
 * | `tasks/<namespace>/<id>/address` | socket of the shim that holds the task |
 * | `tasks/<namespace>/<id>/state.json` | what a fresh process needs to take the task up again |
 * | `tasks/<namespace>/<id>/deleted` | the answer of `delete`, as an argument of printf(1) |
 * | `pages/<namespace>.<id>.<n>/` | a restore whose memory comes in while it runs: src/pages/fill-files.ts |
 * | `tasks/<namespace>/<id>/dead` | the same, of a task whose shim is dead, for a `delete` that cannot wait until it is cleared away |
 * | `tasks/<namespace>/<id>/rewind` | a rewind ends the task: src/checkpoint/rewind/sole-delete.ts |
 * | `tasks/<namespace>/<id>/told` | there when that was told |
 * | `tasks/<namespace>/<id>/warnings` | what went wrong while it was cleared away |
 * | `oci/<namespace>` | state of the OCI runtime |
 */
export class Paths {
  readonly runDir: string;

  constructor(runDir: string) {
    this.runDir = runDir;
  }

  get sockets(): string {
    return `${this.runDir}/s`;
  }

  get locks(): string {
    return `${this.runDir}/locks`;
  }

  /** One shim for each key: containerd's address, the namespace, and a group where shims are not shared. */
  socket(address: string, namespace: string, group: string): string {
    const path = `${this.sockets}/${hash(address, namespace, group)}`;
    if (Buffer.byteLength(path) > MAX_SOCKET_PATH) {
      throw new InvalidArgument(`the socket path ${path} is longer than ${MAX_SOCKET_PATH} bytes`, {
        subject: path,
        remedy: 'choose a shorter daemon.run_dir',
      });
    }
    return path;
  }

  /** Where the worker of the shim at `socket` listens, and the one that is to follow it: no longer than that path. */
  workerSockets(socket: string): readonly [string, string] {
    return [besides('w', socket), besides('x', socket)];
  }

  /** Where its guard is asked about itself: src/shims/control.ts. */
  control(socket: string): string {
    return besides('g', socket);
  }

  /** Folder of the journals in which guards keep how processes have ended: shim/guard/exit-journal.ts. */
  get exits(): string {
    return `${this.runDir}/exits`;
  }

  /** The journal of events of the shim at `socket`. */
  events(socket: string): string {
    return `${this.runDir}/events/${basename(socket)}`;
  }

  lock(address: string, namespace: string, group: string): string {
    return `${this.locks}/${hash(address, namespace, group)}`;
  }

  clearLock(namespace: string): string {
    return `${this.locks}/clear-${checkName('namespace', namespace)}`;
  }

  resident(address: string, namespace: string): string {
    const containerd = address.replace(/^\/+/, '');
    return `${this.runDir}/resident/${containerd}/${checkName('namespace', namespace)}/shim`;
  }

  tasks(namespace: string): string {
    return `${this.runDir}/tasks/${checkName('namespace', namespace)}`;
  }

  task(namespace: string, id: string): string {
    return `${this.tasks(namespace)}/${checkName('id', id)}`;
  }

  ociRoot(namespace: string): string {
    return `${this.runDir}/oci/${checkName('namespace', namespace)}`;
  }
}

/** sun_path has 108 bytes, unix(7); containerd itself allows 106. */
const MAX_SOCKET_PATH = 106;

/** Another file for the shim at `socket`. */
function besides(letter: string, socket: string): string {
  return join(dirname(socket), `${letter}${basename(socket).slice(1)}`);
}

function hash(...parts: string[]): string {
  return createHash('sha256').update(parts.join('\0')).digest('hex').slice(0, 20);
}

/**
 * Refuses what containerd would not accept as an identifier either, since names become path components here:
 * alphanumerics in groups joined by single `.`, `_` or `-` (containerd's identifiers package).
 * @throws InvalidArgument
 */
export function checkName(what: string, name: string): string {
  if (!/^[A-Za-z0-9]+(?:[._-]+[A-Za-z0-9]+)*$/.test(name) || name.length > 255) {
    throw new InvalidArgument(`${what} ${JSON.stringify(name)} is not a valid identifier`, { subject: name });
  }
  return name;
}
