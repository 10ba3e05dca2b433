import { configPath, loadConfig } from '../../config/config.ts';
import { Unavailable } from '../../errors.ts';
import { askGuard, type Upgraded } from '../../shims/control.ts';
import { controlOf, listShims, shimMessage, type RunningShim } from '../../shims/list.ts';
import { programVersion, version } from '../../version.ts';
import type { WithData } from '../fault.ts';
import type { Host } from '../host.ts';
import { shimTable, shimView } from '../shim-view.ts';

interface Options {
  readonly json?: boolean;
  readonly quiet?: boolean;
  readonly namespace?: string;
  readonly all?: boolean;
}

/** Something for those who go on with an older program. */
const NO_GUARD = 'has no guard, and stays as it is until its containers end';
const GUARD_REMEDY =
  'with shim.guard = "on" in the configuration, shims that start afterwards can be upgraded while they run';

/** `stasis shim ls`: the shims of this host, of all namespaces unless one is named. */
export async function shimLs(host: Host, options: Options): Promise<void> {
  const { json = false, quiet = false } = options;
  const shims = await chosen(host, { ...options, all: options.namespace === undefined });
  if (json)
    host.stdout.write(
      `${JSON.stringify({ installed: programVersion, shims: shims.map(shimMessage).map(shimView) }, null, 2)}\n`,
    );
  else if (quiet) host.stdout.write(shims.map(({ pid }) => `${pid}\n`).join(''));
  else if (shims.length === 0) host.stdout.write('no shim runs\n');
  else host.stdout.write(shimTable(shims.map(shimMessage)));
}

/** What became of one shim. */
interface Outcome {
  readonly shim: RunningShim;
  readonly result: 'upgraded' | 'up-to-date' | 'no-guard' | 'failed';
  readonly text: string;
  readonly upgraded?: Upgraded;
}

/** What failed, with what became of the others. */
class NotUpgraded extends Unavailable implements WithData {
  readonly data: Readonly<Record<string, unknown>>;

  constructor(failed: readonly Outcome[], data: Readonly<Record<string, unknown>>) {
    super(
      `${failed.length === 1 ? 'a shim was' : `${failed.length} shims were`} not upgraded: ${failed[0]?.text}`,
      {
        subject: failed[0]?.shim.namespace,
        reason: 'shim-not-upgraded',
        remedy: "its containers run on under the version before; see containerd's log, and call it again",
      },
    );
    this.data = data;
  }
}

/**
 * `stasis shim upgrade`: has the guards of running shims replace their workers by the installed version, one after the other.
 * @throws Unavailable after all were tried, where one was not replaced; its containers run on under the one before
 */
export async function shimUpgrade(host: Host, options: Options): Promise<void> {
  const { json = false, quiet = false } = options;
  const outcomes: Outcome[] = [];
  for (const shim of await chosen(host, options)) {
    const outcome = await upgrade(shim);
    outcomes.push(outcome);
    if (!json && !quiet && outcome.result !== 'failed') host.stdout.write(`${outcome.text}\n`);
  }
  const view = {
    installed: programVersion,
    shims: outcomes.map(({ shim, result, text, upgraded }) => ({
      namespace: shim.namespace,
      pid: shim.pid,
      containers: shim.containers.length,
      result,
      text,
      ...upgraded,
    })),
  };
  const failed = outcomes.filter(({ result }) => result === 'failed');
  if (failed.length > 0) throw new NotUpgraded(failed, view);
  if (json) host.stdout.write(`${JSON.stringify(view, null, 2)}\n`);
  else if (outcomes.length === 0 && !quiet) host.stdout.write('no shim runs\n');
  else if (outcomes.some(({ result }) => result === 'no-guard') && !quiet)
    host.stdout.write(`${GUARD_REMEDY}\n`);
}

async function upgrade(shim: RunningShim): Promise<Outcome> {
  const { namespace, pid, guard, version: running, containers } = shim;
  const name = `shim ${pid} (${namespace === '' ? 'no container' : `${namespace}, ${count(containers.length)}`})`;
  if (guard === undefined) {
    if (running === version)
      return { shim, result: 'up-to-date', text: `${name}: is of version ${version} already` };
    return { shim, result: 'no-guard', text: `${name}: version ${running}, ${NO_GUARD}` };
  }
  if (running === programVersion && guard.version === programVersion)
    return { shim, result: 'up-to-date', text: `${name}: is of version ${running} already` };
  const answer = await askGuard(controlOf(shim.socket), 'upgrade').catch((error: unknown) => ({
    error: error instanceof Error ? error.message : String(error),
  }));
  if (!('upgraded' in answer)) {
    const why = 'error' in answer ? answer.error : 'its guard answers something else';
    return { shim, result: 'failed', text: `${name}: ${why}` };
  }
  const { upgraded } = answer;
  const { worker, guard: own, tookMs } = upgraded;
  const stays = own.why === undefined ? '' : ` (the guard stays ${own.from}: ${own.why})`;
  const text = `${name}: ${worker.from} → ${worker.to}, ${tookMs} ms${stays}`;
  return { shim, result: 'upgraded', text, upgraded };
}

function count(containers: number): string {
  return containers === 1 ? '1 container' : `${containers} containers`;
}

async function chosen({ env }: Host, { namespace, all = false }: Options): Promise<RunningShim[]> {
  const config = loadConfig(configPath(env), env['STASIS_CONFIG'] !== undefined);
  const shims = await listShims(config.daemon.run_dir);
  const one = namespace ?? (env['CONTAINERD_NAMESPACE'] || 'default');
  return all ? shims : shims.filter((shim) => shim.namespace === one);
}
