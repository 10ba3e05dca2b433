import { open } from 'node:fs/promises';
import { hasErrno } from '../errors.ts';

/** Errors that only say that something failed; the one before them says what. CRIU writes them on its way out. */
const generic = [
  /^(?:Dumping|Restoring|Pre-dumping) FAILED\.?$/,
  /^Dump (?:files|core|mm|sigaction|sighand|VMA|namespaces?|timers|itimers|mappings|fs|cgroup|creds|ids|task|thread|sk)\b.*failed with -?\d+$/i,
  /^[\w ]+ \(pid: \d+\) failed with -?\d+$/,
  /^Failed to (?:dump|restore|wait for|start) .*(?:task|process|restorer|criu)\b/i,
  /^\d+ (?:exited|killed|stopped), status=/,
  /^\d+ (?:exited|killed|stopped) by signal/,
  /^Can't wait or bad status/,
  /^Error in processing/i,
  /^Unable to (?:dump|restore)\b.*$/,
  // Said by every CRIU without CAP_SYS_RESOURCE, and of no consequence.
  /^rlimit: Can't setup RLIMIT_NOFILE for self/,
  /^killed by signal \d+/,
  /^Can't dump pages with parasite$/,
  // Of tasks that CRIU has not stopped yet when it lets go of all.
  /^Unable to detach from \d+: No such process$/,
  /^Timeout reached\. Try to interrupt/,
  // The helper that moves tasks between cgroups ends with the restore that asked it.
  /^cg: cgroupd: recv req error/,
  /\bIn-flight connections can be ignored with\b/,
  /^Unable to open fd=\d+ id=0x[0-9a-f]+$/,
];

/**
 * A connection that is just being made, which no image can hold: one in a listening socket's queue, over TCP or with data
 * in it already over a Unix socket (sk-inet.c, sk-unix.c), or one of TCP in SYN_SENT (2) or SYN_RECV (3).
 */
const passing =
  /in-flight|TCP socket in listen state with backlog|Unknown inet socket [0-9a-f]+ state [23]$/i;

/** What the reader can do about the reasons met most. */
const advice: readonly (readonly [RegExp, string])[] = [
  [passing, 'a connection is just being made and was not accepted yet: try again'],
  [/Connected TCP socket|--tcp-established/, 'it has open TCP connections'],
  [/io_uring|anon_inode:\[io_uring\]/, 'it uses io_uring, which CRIU cannot dump'],
  [
    /Can't lookup mount=.*for fd=[012]\b/,
    'its standard streams are files of the host; use pipes, a terminal or none',
  ],
  [/External socket is used|--ext-unix-sk/, 'it is connected to a Unix socket of the host'],
  [/Ghost file .* bigger than|--ghost-limit/, 'it keeps a large file open that has been removed'],
  [/iptables-restore|nftables/, 'the network cannot be locked: install iptables'],
  [
    /Unseizable non-zombie \d+ found, state D/,
    'a process sleeps where it cannot be interrupted, as in vfork until the child calls exec',
  ],
  [/No space left on device/, 'there is no room for the image'],
];

export interface CriuFailure {
  /** CRIU's own words. */
  readonly message: string;
  /** What they mean for the container, where that is known. */
  readonly meaning: string | undefined;
  /** It is of that moment: a moment later there may be no such thing in the container. */
  readonly passing: boolean;
}

/** Enough for the end of a log at its highest level, whose errors come last. */
const TAIL_BYTES = 512 * 1024;

/**
 * CRIU's own reason from a `dump.log` or `restore.log`: the last error that says what failed, not the ones that follow
 * from it. Undefined when there is no log or no error in it (CRIU was killed, or never ran).
 */
export async function lastError(logFile: string): Promise<CriuFailure | undefined> {
  let handle;
  try {
    handle = await open(logFile, 'r');
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
  try {
    const { size } = await handle.stat();
    const buffer = Buffer.alloc(Math.min(size, TAIL_BYTES));
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, size - buffer.length);
    return parseLastError(buffer.toString('utf8', 0, bytesRead));
  } finally {
    await handle.close();
  }
}

/** The pure part of `lastError`. */
export function parseLastError(text: string): CriuFailure | undefined {
  const errors = text
    .split('\n')
    // `(00.012345)     12: Error (criu/file.c:34): area: message`
    .map((line) => /^(?:\([\d.]+\) *)?(?:\d+: *)?Error \([^)]*\): *(.*)$/.exec(line)?.[1]?.trim())
    .filter((message) => message !== undefined && message !== '');
  const telling = errors.findLast(
    (message) => message !== undefined && !generic.some((phrase) => phrase.test(message)),
  );
  const message = telling ?? errors.at(-1);
  if (message === undefined) return undefined;
  return {
    message,
    meaning: advice.find(([phrase]) => phrase.test(message))?.[1],
    passing: passing.test(message),
  };
}

/** One sentence for a user: CRIU's words, and what they mean. */
export function describeFailure(failure: CriuFailure): string {
  return failure.meaning === undefined ? failure.message : `${failure.message} (${failure.meaning})`;
}
