import type { CommandResult } from '../sys/command.ts';
import {
  AlreadyExists,
  Cancelled,
  DeadlineExceeded,
  FailedPrecondition,
  Internal,
  InvalidArgument,
  NotFound,
  PermissionDenied,
  ResourceExhausted,
  Unavailable,
  type ErrorDetails,
} from '../errors.ts';

/** The dataset is mounted, open or held: trying again later may work. */
export class Busy extends FailedPrecondition {}
/** A snapshot (or a file system through its snapshots) that clones depend on. */
export class HasClones extends FailedPrecondition {}
/** A file system that has snapshots or file systems below it. */
export class HasChildren extends FailedPrecondition {}
/** The parent file system of a name to be made does not exist. */
export class ParentMissing extends NotFound {}
/** I/O to the pool is suspended, or ZFS itself cannot be reached. */
export class ZfsUnavailable extends Unavailable {}

type Kind = new (message: string, details?: ErrorDetails) => Error;

/**
 * What the `zfs` and `zpool` commands print, by kind. Each expression is anchored to a whole line, so
 * that a dataset's name can never be taken for a cause; a line that matches none stays generic.
 * Sources: libzfs_util.c's error table (OpenZFS 2.3), zfs-fuse 0.7.0 (by trial).
 */
const table: readonly (readonly [RegExp, Kind, string?])[] = [
  [
    /^cannot .+: pool I\/O is currently suspended$/,
    ZfsUnavailable,
    'bring the devices back, then run zpool clear',
  ],
  [/^cannot .+: one or more devices (is|are) currently unavailable$/, ZfsUnavailable],
  [/^Please make sure that the zfs-fuse daemon is running\.$/, ZfsUnavailable, 'start it: zfs-fuse'],
  [
    /^(The ZFS modules (are not loaded|cannot be auto-loaded)\.|\/dev\/zfs and \/proc\/self\/mounts are required\.)$/,
    ZfsUnavailable,
    'load the module: modprobe zfs',
  ],
  [/^(Unable to open \/dev\/zfs: |cannot .+: )[Pp]ermission denied\.?$/, PermissionDenied],
  [/^cannot .+: (Operation not permitted|insufficient privileges|permission denied)$/, PermissionDenied],
  [/^Permission denied the ZFS utilities must be run as root\.$/, PermissionDenied],
  [/^connect: Permission denied$/, PermissionDenied, 'zfs-fuse answers root alone'],
  [
    /^cannot .+: (out of space|No space left on device|disk quota exceeded|Disk quota exceeded|size is greater than available space|size is less than current used or reserved space)$/,
    ResourceExhausted,
    'free space, or add to the pool or quota',
  ],
  [/^cannot (create|clone|rename) .+: parent does not exist$/, ParentMissing],
  [/^cannot (create|clone|rename) .+: no such parent .+$/, ParentMissing],
  [
    /^cannot .+: (dataset does not exist|no such pool|no such pool or dataset|could not find any snapshots to destroy.*)$/,
    NotFound,
  ],
  [/^could not find any snapshots to destroy; check snapshot names\.$/, NotFound],
  [
    /^cannot .+: (dataset already exists|snapshot already exists|destination already exists|dataset exists)$/,
    AlreadyExists,
  ],
  [/^cannot destroy .+: (filesystem|volume) has children$/, HasChildren],
  [/^cannot destroy .+: (filesystem|snapshot|volume) has dependent clones$/, HasClones],
  [
    /^cannot destroy snapshot .+: (snapshot is cloned|snapshot has dependent clones|dataset is cloned)$/,
    HasClones,
  ],
  [/^cannot .+: (dataset|filesystem|pool or dataset|mountpoint or dataset|pool|snapshot) is busy$/, Busy],
  [
    /^cannot .+: (Device or resource busy|Device busy|target is busy\.?|umount failed.*|unmount failed)$/,
    Busy,
  ],
  [/^cannot .+: (invalid|bad) .+$/, InvalidArgument],
  [/^cannot .+: .*(is too long|too long)$/, InvalidArgument],
  [/^(name is too long|property value too long|.+: property value too long)$/, InvalidArgument],
  [/^cannot .+: (filesystem already mounted|filesystem is already mounted)$/, AlreadyExists],
];

/**
 * The typed error of a command that failed. The message names the command, the thing and the cause.
 * @param what what was attempted, such as `destroy dataset tank/a`
 */
export function commandError(what: string, subject: string, result: CommandResult): Error {
  const details = { subject };
  if (result.spawnError !== undefined) {
    return new ZfsUnavailable(`cannot ${what}: the zfs command cannot be started (${result.spawnError})`, {
      ...details,
      remedy: 'install zfsutils-linux or zfs-fuse, or set zfs.zfs_path and zfs.zpool_path',
    });
  }
  if (result.cancelled) return new Cancelled(`cannot ${what}: cancelled`, details);
  if (result.timedOut) {
    return new DeadlineExceeded(`cannot ${what}: no answer from ZFS in ${Math.round(result.durationMs)} ms`, {
      ...details,
      remedy: 'see zpool status: a pool whose devices fail answers late or never',
    });
  }
  const lines = result.stderr.split('\n').map((line) => line.trim());
  for (const [pattern, kind, remedy] of table) {
    const line = lines.find((candidate) => pattern.test(candidate));
    if (line !== undefined) {
      return new kind(`cannot ${what}: ${line}`, remedy === undefined ? details : { ...details, remedy });
    }
  }
  const said =
    lines.find((line) => line !== '') ?? `exit status ${result.exitCode ?? result.signal ?? 'unknown'}`;
  return new Internal(`cannot ${what}: ${said}`, details);
}
