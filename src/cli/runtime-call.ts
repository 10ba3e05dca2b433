// Calls meant for an OCI runtime: `nerdctl run --runtime stasis` makes runc's shim execute
// `stasis --root … --log … --log-format json create --bundle … ID`.
import { Unimplemented } from '../errors.ts';

/** Commands of the OCI command line (runtime-tools, docs/command-line-interface.md) and of runc that we have not. */
const verbs = new Set(['create', 'start', 'state', 'kill', 'delete', 'exec', 'pause', 'resume', 'update']);
const moreVerbs = new Set(['ps', 'events', 'features', 'init']);
/** Options that runtimes take before the command and we do not. */
const options = /^--?(?:root|log|log-format|systemd-cgroup|rootless|criu)(?:=|$)/;

/** The refusal, when the arguments are a call of an OCI runtime. */
export function runtimeCall(argv: readonly string[]): Unimplemented | undefined {
  const verb = argv.find((argument) => verbs.has(argument) || moreVerbs.has(argument));
  const first = argv[0] ?? '';
  if (!options.test(first) && verb !== first) return undefined;
  const called = verb === undefined ? '' : ` (called to ${verb})`;
  return new Unimplemented(`not an OCI runtime such as runc${called}`, {
    subject: verb,
    reason: 'not-an-oci-runtime',
    remedy:
      'run containers with `--runtime io.containerd.stasis.v2`; its shim calls the OCI runtime that runtime.oci ' +
      'names in /etc/stasis/config.toml',
  });
}

/**
 * Repeats the refusal in the log file that the caller named with --log: runc's shim shows its user the last
 * error it finds there, and nothing of stderr. A file that cannot be written is let be.
 */
export function tellCaller(argv: readonly string[], message: string): void {
  const at = argv.findIndex((argument) => /^--?log(?:=|$)/.test(argument));
  const argument = argv[at] ?? '';
  const file = argument.includes('=') ? argument.slice(argument.indexOf('=') + 1) : argv[at + 1];
  if (at < 0 || file === undefined || !file.startsWith('/')) return;
  const line = `${JSON.stringify({ level: 'error', msg: message, time: new Date().toISOString() })}\n`;
  // Not imported, since every start would pay for it; see docs/cli.md.
  const { closeSync, constants, openSync, writeSync } = process.getBuiltinModule('node:fs');
  const { O_APPEND, O_CREAT, O_NOFOLLOW, O_WRONLY } = constants;
  try {
    const log = openSync(file, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW, 0o600);
    writeSync(log, line);
    closeSync(log);
  } catch {
    // The message went to stderr as well.
  }
}
