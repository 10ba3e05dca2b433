import { openSync } from 'node:fs';
import { configPath, loadConfig, readConfig, socketPath } from '../../config/config.ts';
import { Containerd } from '../../containerd/client.ts';
import { Aborted, FailedPrecondition, PermissionDenied } from '../../errors.ts';
import { applySteps, describe, describeUndo, undoEntries } from '../../setup/apply.ts';
import { DROP_IN } from '../../setup/containerd-config.ts';
import { type Facts, gatherFacts, type Surroundings } from '../../setup/facts.ts';
import { makePlan, type Plan } from '../../setup/plan.ts';
import { runningContainers } from '../../setup/running.ts';
import { selfCheck } from '../../setup/self-check.ts';
import { restartContainerd } from '../../setup/services.ts';
import { SetupState } from '../../setup/state.ts';
import { exec } from '../../sys/command.ts';
import { tryLock } from '../../sys/lock.ts';
import type { Session } from '../session.ts';
import { table } from '../table.ts';
import { printable } from '../text.ts';

export interface SetupOptions {
  pool?: string;
  yes?: boolean;
  dryRun?: boolean;
  undo?: boolean;
  keepData?: boolean;
  restartContainerd?: boolean;
  /** False with --no-check. */
  check?: boolean;
  containerdConfig?: string;
}

const CONTAINERD_CONFIG = '/etc/containerd/config.toml';
const LOCK = '/run/stasis-setup.lock';

/** `stasis setup`: what it would do; with --yes it does it. */
export async function setup(session: Session, options: SetupOptions): Promise<void> {
  const { env } = session.host;
  const path = configPath(env);
  const around: Surroundings = {
    exec,
    config: loadConfig(path, false),
    uid: process.getuid?.() ?? 0,
    // Only tests set it: a host in a folder.
    prefix: env['STASIS_SETUP_PREFIX'] ?? '',
    containerdConfig: options.containerdConfig ?? CONTAINERD_CONFIG,
  };
  if (around.uid !== 0) {
    throw new PermissionDenied('setup looks at what only root may see, and changes the system', {
      reason: 'not-root',
      remedy: `sudo stasis setup${options.undo === true ? ' --undo' : ''}`,
    });
  }
  const change = options.yes === true && options.dryRun !== true;
  if (change) takeLock(around.prefix + LOCK);
  const state = await SetupState.load(around.prefix);
  if (options.undo === true) return undo(session, around, state, options, change);

  const { signal } = session.host;
  // Whatever waits for a pool that hangs, a signal ends.
  const facts = await gatherFacts({
    ...around,
    exec: (file, args, how) => exec(file, args, { signal, ...how }),
  });
  signal.throwIfAborted();
  const plan = makePlan(
    facts,
    { pool: options.pool, restartContainerd: options.restartContainerd === true },
    {
      path,
      text: readConfig(around.prefix + path, false),
      root: around.config.zfs.root,
      socket: socketPath(around.config),
      written: state.written(DROP_IN),
    },
  );
  const stops = plan.findings.filter(({ level }) => level === 'stop');
  if (!session.globals.json) session.host.stdout.write(planText(plan, change, again(options)));
  if (stops.length > 0) {
    session.partial = view(plan, false);
    throw new FailedPrecondition(`this host cannot be set up: ${stops.map(({ text }) => text).join('; ')}`, {
      subject: stops[0]?.what,
      reason: 'cannot-set-up',
      remedy: stops[0]?.remedy,
    });
  }
  if (!change) {
    if (session.globals.json) session.host.stdout.write(`${JSON.stringify(view(plan, false), null, 2)}\n`);
    return;
  }
  session.partial = view(plan, false);
  const tell = teller(session);
  await applySteps(plan.steps, around, state, tell, signal);
  const checked = await check(session, around, facts, options, tell);
  const answer = { ...view(plan, true), check: checked ?? null };
  if (session.globals.json) session.host.stdout.write(`${JSON.stringify(answer, null, 2)}\n`);
  else
    session.host.stdout.write(
      checked === undefined ? '' : `works: a container was checkpointed, ${checked}\n`,
    );
}

async function check(
  session: Session,
  around: Surroundings,
  facts: Facts,
  options: SetupOptions,
  tell: (line: string) => void,
): Promise<string | undefined> {
  if (options.check === false) return undefined;
  const containerd = new Containerd(around.config.containerd.address);
  const loaded = await containerd
    .plugins(['type==io.containerd.snapshotter.v1,id==stasis'])
    .then((plugins) => plugins.length > 0)
    .catch(() => false);
  containerd.close();
  if (!loaded) {
    const how = facts.systemd === undefined ? 'restart containerd' : 'systemctl restart containerd';
    session.warn(
      `containerd has not read its new configuration: ${how}, then run stasis setup --yes again to check it`,
    );
    return undefined;
  }
  return selfCheck(session, around.exec, around.config.containerd.address, tell);
}

/** `stasis setup --undo`. */
async function undo(
  session: Session,
  around: Surroundings,
  state: SetupState,
  { keepData = false, restartContainerd: restart }: SetupOptions,
  change: boolean,
): Promise<void> {
  const { stdout } = session.host;
  const { entries } = state;
  if (change) assertNoneRuns(runningContainers(around.prefix + around.config.daemon.run_dir));
  const files = entries.flatMap((entry) => (entry.kind === 'file' ? [entry.path] : []));
  if (!change) {
    const lines = await Promise.all(entries.map((entry) => describeUndo(entry, around)));
    if (session.globals.json) stdout.write(`${JSON.stringify({ wouldUndo: lines }, null, 2)}\n`);
    else if (lines.length === 0) stdout.write('there is nothing to undo\n');
    else
      stdout.write(
        `To be undone:\n${lines
          .toReversed()
          .map((line) => `  ${line}\n`)
          .join('')}\nTo do it: stasis setup --undo --yes\n`,
      );
    return;
  }
  const tell = teller(session);
  const left = await undoEntries(entries, around, state, { keepData, tell });
  for (const line of left) session.warn(line);
  if (files.some((path) => path.startsWith('/etc/containerd/')) && restart !== true) {
    session.warn('containerd runs with what it has read until it is restarted: systemctl restart containerd');
  } else if (restart === true) await restartContainerd({ ...around, withoutPlugin: true });
  if (session.globals.json) stdout.write(`${JSON.stringify({ undone: entries.length, left }, null, 2)}\n`);
  else stdout.write(entries.length === 0 ? 'there was nothing to undo\n' : 'undone\n');
}

/** Whoever takes containerd's settings away takes them from containers that run, at its next restart. */
function assertNoneRuns(running: readonly string[]): void {
  const [first] = running;
  if (first === undefined) return;
  const [namespace = '', id = ''] = first.split('/');
  const more = running.length > 8 ? `, and ${running.length - 8} more` : '';
  throw new FailedPrecondition(
    `containers run under io.containerd.stasis.v2, and containerd would lose them at its next restart: ${running.slice(0, 8).join(', ')}${more}`,
    {
      subject: first,
      reason: 'containers-run',
      remedy: `checkpoint those that are to come back, then end each: ctr --namespace ${namespace} tasks kill --signal SIGKILL ${id}`,
    },
  );
}

/** The command that does what a dry run has shown. */
function again({ pool, restartContainerd, containerdConfig, check }: SetupOptions): string {
  return [
    'stasis setup --yes',
    ...(pool === undefined ? [] : [`--pool ${pool}`]),
    ...(containerdConfig === undefined ? [] : [`--containerd-config ${containerdConfig}`]),
    ...(restartContainerd === true ? ['--restart-containerd'] : []),
    ...(check === false ? ['--no-check'] : []),
  ].join(' ');
}

/** Held until the process ends. */
function takeLock(path: string): void {
  let fd: number;
  try {
    fd = openSync(path, 'w', 0o600);
  } catch {
    return; // not root, or a host without /run: what comes says so
  }
  if (tryLock(fd)) return;
  throw new Aborted('another stasis setup is at work', {
    subject: path,
    reason: 'setup-runs',
    remedy: 'wait for it to end',
  });
}

function teller(session: Session): (line: string) => void {
  const { quiet, json } = session.globals;
  return (line) => {
    if (!quiet && !json) session.host.stderr.write(`- ${printable(line)}\n`);
  };
}

function view({ findings, steps, rootDataset }: Plan, applied: boolean) {
  return {
    findings: findings.map(({ level, what, text, remedy }) => ({
      level,
      what,
      text,
      remedy: remedy ?? null,
    })),
    steps: steps.map((step) => ({ ...step, does: describe(step) })),
    rootDataset,
    applied,
  };
}

function planText({ findings, steps }: Plan, change: boolean, command: string): string {
  const rows = findings.map(({ level, what, text, remedy }) => [
    level === 'stop' ? 'STOP' : level,
    what,
    remedy === undefined ? text : `${text}; ${remedy}`,
  ]);
  const found = `${table(['STATE', 'WHAT', 'FOUND'], rows)}\n`;
  if (findings.some(({ level }) => level === 'stop')) return found;
  if (steps.length === 0) return `${found}Nothing to do.\n`;
  const list = steps
    .map((step) => {
      const content = step.kind === 'file' && !change ? indent(step.text) : '';
      return `  ${printable(describe(step))}\n${content}`;
    })
    .join('');
  return `${found}${change ? 'Doing' : 'To do'}:\n${list}${change ? '' : `\nNothing was changed. To do it: ${printable(command)}\n`}`;
}

function indent(text: string): string {
  return text
    .trimEnd()
    .split('\n')
    .map((line) => `    | ${printable(line)}\n`)
    .join('');
}
