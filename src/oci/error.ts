import { Code, StasisError } from '../errors.ts';
import type { CommandResult } from '../sys/command.ts';
import type { OciErrorKind } from './types.ts';

/**
 * The status that clients see for each kind. A program that is missing in the container, or a runtime that is missing
 * on the host, stays Unknown: containerd's own shim answers that, and clients compare.
 */
const codes: Record<OciErrorKind, Code> = {
  'not-found': Code.NotFound,
  'not-running': Code.FailedPrecondition,
  'already-exists': Code.AlreadyExists,
  paused: Code.FailedPrecondition,
  'process-finished': Code.NotFound,
  'missing-executable': Code.Unknown,
  'missing-runtime': Code.Unknown,
  criu: Code.Unknown,
  unsupported: Code.Unimplemented,
  timeout: Code.DeadlineExceeded,
  cancelled: Code.Cancelled,
  unknown: Code.Unknown,
};

export interface OciErrorDetails {
  /** Container id. */
  readonly subject: string;
  /** What the runtime itself said, without our prefix. */
  readonly said: string;
  readonly exitCode?: number | undefined;
  readonly remedy?: string | undefined;
}

/** An OCI runtime that failed, or could not be started. */
export class OciError extends StasisError {
  readonly kind: OciErrorKind;
  readonly verb: string;
  /** The runtime's own words. */
  readonly said: string;
  readonly exitCode: number | undefined;

  constructor(kind: OciErrorKind, verb: string, details: OciErrorDetails) {
    super(codes[kind], `OCI runtime ${verb} failed: ${details.said}`, {
      subject: details.subject,
      remedy: details.remedy,
      reason: `runtime-${kind}`,
    });
    this.kind = kind;
    this.verb = verb;
    this.said = details.said;
    this.exitCode = details.exitCode;
  }
}

export function isOciError(error: unknown, ...kinds: OciErrorKind[]): error is OciError {
  return error instanceof OciError && (kinds.length === 0 || kinds.includes(error.kind));
}

/**
 * What the last error line of a runtime's log says, by runc 1.1 to 1.5 and crun 1.8 to 1.29. Whole phrases only: a line
 * that none of them matches stays `unknown`, so that no message is taken for what it is not.
 */
const phrases: readonly (readonly [RegExp, OciErrorKind])[] = [
  [/^criu failed: /, 'criu'],
  [/^CRIU (?:checkpointing|restoring) failed/, 'criu'],
  [/\bos: process already finished$/, 'process-finished'],
  [/\bno such process$/i, 'process-finished'],
  [/^container (?:"[^"]+" )?does not exist$/, 'not-found'],
  [/^container `[^`]+` does not exist: /, 'not-found'],
  [/^error opening file `[^`]+\/status`: No such file or directory$/, 'not-found'],
  [/^cannot open directory `[^`]+`: No such file or directory$/, 'not-found'],
  [/^container with (?:given ID already|id) exists/, 'already-exists'],
  [/^container `[^`]+` already exists$/, 'already-exists'],
  [/^cannot exec in a paused container/, 'paused'],
  [/^the container `[^`]+` is paused$/, 'paused'],
  [/^container paused$/, 'paused'],
  [/^container not (?:running|paused)/, 'not-running'],
  [/^(?:the )?container `[^`]+` is not (?:running|paused)$/, 'not-running'],
  [/^cannot exec (?:in|a) .*stopped/, 'not-running'],
  [/^cannot start a container that has (?:stopped|run and stopped)/, 'not-running'],
  [/^container cannot be checkpointed in (?:stopped|created) state$/i, 'not-running'],
  [/^process not running/, 'not-running'],
  [/executable file not found in \$PATH/, 'missing-executable'],
  [/executable file `[^`]*` not found/, 'missing-executable'],
  [/^the path `[^`]*` (?:exists but it is not executable|is not a regular file)/, 'missing-executable'],
  [
    /\bexec: "[^"]*": (?:stat [^:]*: )?(?:no such file or directory|permission denied|is a directory)/,
    'missing-executable',
  ],
  [/\bexec "?[^"]*"?: (?:no such file or directory|permission denied)/, 'missing-executable'],
  [/^flag provided but not defined/, 'unsupported'],
  [/^[\w ]*: unrecognized option/, 'unsupported'],
];

export function classify(said: string): OciErrorKind {
  // runc puts the verb in front of some: `runc create failed: …`, `exec failed: …`.
  const core = said.replace(/^(?:(?:runc )?(?:create|run|exec|restore) failed: )+/, '');
  return phrases.find(([phrase]) => phrase.test(core))?.[1] ?? 'unknown';
}

/**
 * The message of the last error in a runtime's JSON log, or undefined. runc writes an entry a line and marks it
 * `error` (or `fatal`); crun spreads one over several lines, from `{` to `}`. What is no JSON (a panic) is passed over.
 */
export function lastLogError(text: string): string | undefined {
  let last: string | undefined;
  let open: string[] = [];
  for (const line of text.split('\n')) {
    if (line.startsWith('{')) open = [];
    open.push(line);
    if (!line.endsWith('}')) continue;
    const entry = parseEntry(open.join('\n'));
    if (entry === undefined) continue;
    open = [];
    if (['error', 'fatal', 'panic'].includes(entry.level)) last = entry.msg;
  }
  return last;
}

function parseEntry(text: string): { level: string; msg: string } | undefined {
  if (!text.startsWith('{')) return undefined;
  try {
    const entry = JSON.parse(text) as { level?: unknown; msg?: unknown };
    return typeof entry.level === 'string' && typeof entry.msg === 'string'
      ? { level: entry.level, msg: entry.msg.trim() }
      : undefined;
  } catch {
    return undefined;
  }
}

/**
 * The error for a runtime call that did not succeed.
 * @param log the call's own log file, as text
 * @param otherwise what is said where the runtime has said nothing
 */
export function errorOf(
  verb: string,
  subject: string,
  path: string,
  result: CommandResult,
  log: string,
  otherwise?: string,
): OciError {
  if (result.spawnError !== undefined) {
    const missing = result.spawnError === 'ENOENT';
    const where = path.includes('/') ? 'no such file or directory' : 'executable file not found in $PATH';
    return new OciError(missing ? 'missing-runtime' : 'unknown', verb, {
      subject,
      said: `exec: "${path}": ${missing ? where : result.spawnError}`,
      remedy: 'install runc or crun, or name one in runtime.oci of the configuration',
    });
  }
  if (result.cancelled) {
    return new OciError('cancelled', verb, { subject, said: 'the caller went away' });
  }
  if (result.timedOut) {
    const seconds = (result.durationMs / 1000).toFixed(1);
    return new OciError('timeout', verb, {
      subject,
      said: `not done after ${seconds} s, so it was killed`,
    });
  }
  const said =
    lastLogError(log) ?? lastLogError(result.stderr) ?? lastLine(result.stderr) ?? lastLine(result.stdout);
  const exitCode = result.exitCode;
  const fallback =
    result.signal === undefined ? `exit status ${exitCode ?? '?'}` : `killed by ${result.signal}`;
  return new OciError(said === undefined ? 'unknown' : classify(said), verb, {
    subject,
    said: said ?? (otherwise === undefined ? fallback : `${otherwise} (${fallback})`),
    exitCode,
  });
}

function lastLine(text: string): string | undefined {
  const line = text.trimEnd().split('\n').at(-1)?.trim();
  return line === undefined || line === '' ? undefined : line;
}
