// Who called the ready command line, as proc(5) knows it: a shell that waits in the script `stasis`.
import { closeSync, fstatSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { isatty } from 'node:tty';
import { openPid, takeDescriptor } from '../../sys/pidfd.ts';
import { startTimeOf } from '../../sys/process.ts';
import { isTerminalLike } from '../output.ts';
import { readyCommands } from './commands.ts';

/** What the script has the answer's FIFO open as, and copies of its standard output and error. */
const ANSWER_FD = 8;
const OUTPUT_FDS = [5, 6];
/** SIGINT and SIGTERM in a set of signals of proc_pid_status(5). SIGHUP is ignored for those who want it so: nohup(1). */
const PASSED_ON = (1n << 1n) | (1n << 14n);
/** A process in another one of these may see something else than we do. */
const namespaces = ['mnt', 'pid', 'net', 'user'];
/** What Node, or the loader of programs, would do something about at its start. */
const startVariables = /^(?:NODE_(?:OPTIONS|DEBUG|V8_COVERAGE|PATH)|LD_(?:PRELOAD|LIBRARY_PATH|AUDIT)$)/;

export interface Caller {
  readonly pid: number;
  /** Tells it from another process that gets its pid. */
  readonly startTime: string;
  /** Without the program's name. */
  readonly argv: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  /** Its own descriptors, under another number: a file's position is shared. */
  readonly stdout: number;
  readonly stderr: number;
}

/**
 * What there is to know of a caller, taken from itself.
 * @param count of its arguments, which end its command line
 * @param answer our end of the FIFO, whose other end it has: so that its pid means the same here as there
 * @returns undefined where its command could run otherwise here than in a process of its own: whoever asks starts one then
 */
export function readCaller(pid: number, count: number, answer: number): Caller | undefined {
  const taken: number[] = [];
  try {
    const pidFd = openPid(pid);
    try {
      if (!isCaller(pid, answer) || !isLikeUs(pid)) return undefined;
      const words = fieldsOf(pid, 'cmdline');
      const argv = words.slice(words.length - count);
      const [command] = argv;
      if (argv.length !== count || !readyCommands.some((one) => one === command)) return undefined;
      // Help is as wide as the terminal, which commander asks this process's own output about.
      if (argv.some((word) => word === '--help' || word === '-h')) return undefined;
      const env = environment(fieldsOf(pid, 'environ'));
      if (Object.keys(env).some((name) => startVariables.test(name))) return undefined;
      for (const fd of OUTPUT_FDS) taken.push(takeDescriptor(pidFd, fd));
      if (taken.some((fd) => isTerminalLike(fd) && !isatty(fd))) return undefined;
      const [stdout = -1, stderr = -1] = taken.splice(0);
      return { pid, startTime: startTimeOf(pid), argv, env, stdout, stderr };
    } finally {
      closeSync(pidFd);
    }
  } catch {
    return undefined; // it is gone, or has no output, or may not be looked at
  } finally {
    for (const fd of taken) closeSync(fd);
  }
}

function isCaller(pid: number, answer: number): boolean {
  const [theirs, ours] = [statSync(`/proc/${pid}/fd/${ANSWER_FD}`), fstatSync(answer)];
  return theirs.dev === ours.dev && theirs.ino === ours.ino;
}

/** Whether it sees and may do what we do. It may be able to do more. */
function isLikeUs(pid: number): boolean {
  if (namespaces.some((one) => link(pid, `ns/${one}`) !== link('self', `ns/${one}`))) return false;
  const [theirRoot, ourRoot] = [statSync(`/proc/${pid}/root/`), statSync('/')];
  if (theirRoot.dev !== ourRoot.dev || theirRoot.ino !== ourRoot.ino) return false;
  const [theirs, ours] = [statusOf(pid), statusOf('self')];
  const capabilities = BigInt(`0x${ours('CapEff')}`);
  return (
    theirs('Uid') === ours('Uid') &&
    theirs('Gid') === ours('Gid') &&
    (BigInt(`0x${theirs('CapEff')}`) & capabilities) === capabilities &&
    // A shell cannot trap what was ignored when it started, and Node can.
    (BigInt(`0x${theirs('SigIgn')}`) & PASSED_ON) === 0n &&
    fileSizeLimit(pid) === fileSizeLimit('self')
  );
}

function link(pid: number | 'self', name: string): string {
  return readlinkSync(`/proc/${pid}/${name}`);
}

/** Reads fields of proc_pid_status(5); throws in BigInt where one is missing. */
function statusOf(pid: number | 'self'): (name: string) => string {
  const text = readFileSync(`/proc/${pid}/status`, 'latin1');
  return (name) => new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(text)?.[1] ?? 'none';
}

function fileSizeLimit(pid: number | 'self'): string | undefined {
  return /^Max file size.*$/m.exec(readFileSync(`/proc/${pid}/limits`, 'latin1'))?.[0];
}

function fieldsOf(pid: number, file: string): string[] {
  const fields = readFileSync(`/proc/${pid}/${file}`, 'utf8').split('\0');
  fields.pop(); // each ends with one
  return fields;
}

/** As getenv(3) has it: of two of one name the first counts. */
function environment(fields: readonly string[]): NodeJS.ProcessEnv {
  const env: NodeJS.ProcessEnv = {};
  for (const field of fields) {
    const equals = field.indexOf('=');
    if (equals > 0) env[field.slice(0, equals)] ??= field.slice(equals + 1);
  }
  return env;
}
