import { rm } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { rootProperties } from '../../snapshotter/load.ts';
import { snapshotterName } from '../checkpoint/host.ts';
import { Containerd } from '../containerd/client.ts';
import { AlreadyExists, FailedPrecondition, messageOf, NotFound, Unavailable } from '../errors.ts';
import type { Exec } from '../sys/command.ts';
import { openZfs, type Zfs } from '../zfs/zfs.ts';
import type { Surroundings } from './facts.ts';
import type { Step } from './plan.ts';
import {
  type Entry,
  makeFolders,
  readWhole,
  removeFolders,
  replaceFile,
  type SetupState,
  sha256,
} from './state.ts';

const SERVICE = 'stasisd.service';
const START_TIMEOUT_MS = 120_000;
/** How long containerd may take to answer after its restart. */
const RETURN_TIMEOUT_MS = 60_000;
const RETURN_POLL_MS = 250;

/** Tells the user what happens. */
export type Tell = (line: string) => void;

/**
 * Carries the steps out in order. If one fails, what this run did is undone, and containerd, if it was restarted, is
 * restarted with its old configuration.
 * @throws what the step threw
 */
export async function applySteps(
  steps: readonly Step[],
  around: Surroundings,
  state: SetupState,
  tell: Tell,
): Promise<void> {
  const before = state.entries.length;
  let restarted = false;
  try {
    for (const step of steps) {
      tell(describe(step));
      if (step.kind === 'restart-containerd') {
        restarted = true;
        await restartContainerd(around);
      } else await change(step, around, state);
    }
  } catch (error) {
    tell(`failed: ${messageOf(error)}; undoing it`);
    const kept = await undoEntries(state.entries.slice(before), around, state, { keepData: false, tell });
    for (const text of kept) tell(text);
    if (restarted) {
      await restartContainerd({ ...around, withoutPlugin: true }).then(
        () => tell('containerd runs with its old configuration'),
        (again: unknown) =>
          tell(`containerd does not come back with its old configuration either: ${messageOf(again)}`),
      );
    }
    throw error;
  }
}

export function describe(step: Step): string {
  switch (step.kind) {
    case 'dataset':
      return `create the dataset ${step.name}`;
    case 'file':
      return `write ${step.path}: ${step.why}`;
    case 'service':
      return `enable and start ${SERVICE}`;
    case 'restart-containerd':
      return 'restart containerd, and look whether it is back';
  }
}

async function change(
  step: Exclude<Step, { kind: 'restart-containerd' }>,
  around: Surroundings,
  state: SetupState,
): Promise<void> {
  switch (step.kind) {
    case 'dataset': {
      const zfs = await zfsOf(around);
      await state.add({ kind: 'dataset', name: step.name });
      await zfs.create(step.name, { properties: rootProperties(zfs.kind) }).catch((error: unknown) => {
        if (!(error instanceof AlreadyExists)) throw error; // stasisd was quicker
      });
      return;
    }
    case 'file': {
      const path = around.prefix + step.path;
      const before = await readWhole(path);
      const content = Buffer.from(step.text);
      const folders = (await makeFolders(path)).map((folder) => folder.slice(around.prefix.length));
      const { path: named, text } = step;
      await state.add({ kind: 'file', path: named, before, folders, after: sha256(content), text });
      await replaceFile(path, content, before ?? { mode: 0o644 });
      return;
    }
    case 'service': {
      const enabled = await succeeds(around.exec, ['is-enabled', '--quiet', SERVICE]);
      const active = await succeeds(around.exec, ['is-active', '--quiet', SERVICE]);
      await state.add({ kind: 'service', enabled, active });
      await systemctl(around.exec, ['enable', '--now', SERVICE], `see: journalctl -u ${SERVICE}`);
      return;
    }
  }
}

export interface UndoOptions {
  /** Leave the dataset alone, whatever it holds. */
  readonly keepData: boolean;
  readonly tell: Tell;
}

/**
 * Undoes entries, the last first. What was edited since is left as it is.
 * @returns what was left, a line each
 */
export async function undoEntries(
  entries: readonly Entry[],
  around: Surroundings,
  state: SetupState,
  { keepData, tell }: UndoOptions,
): Promise<string[]> {
  const left: string[] = [];
  for (const entry of entries.toReversed()) {
    const why = await undo(entry, around, keepData, tell);
    if (why !== undefined) left.push(why);
    await state.remove(entry);
  }
  return left;
}

async function undo(
  entry: Entry,
  around: Surroundings,
  keepData: boolean,
  tell: Tell,
): Promise<string | undefined> {
  switch (entry.kind) {
    case 'file':
      return undoFile(entry, around.prefix, tell);
    case 'service':
      if (!entry.active) await around.exec('systemctl', ['stop', SERVICE], { timeoutMs: START_TIMEOUT_MS });
      if (!entry.enabled)
        await around.exec('systemctl', ['disable', '--quiet', SERVICE], { timeoutMs: START_TIMEOUT_MS });
      tell(`${SERVICE} is as it was`);
      return undefined;
    case 'dataset': {
      if (keepData) return `the dataset ${entry.name} stays, with all that is in it`;
      const gone = await destroyIfEmpty(await zfsOf(around), entry.name);
      if (!gone)
        return `the dataset ${entry.name} is not empty and stays; to destroy it: zfs destroy -R ${entry.name}`;
      tell(`destroyed the empty dataset ${entry.name}`);
      return undefined;
    }
  }
}

async function undoFile(
  { path, before, after, folders }: Entry & { kind: 'file' },
  prefix: string,
  tell: Tell,
): Promise<string | undefined> {
  const now = await readWhole(prefix + path);
  if (now?.content === before?.content) return undefined; // never written, or restored by hand
  if (now === undefined || sha256(Buffer.from(now.content, 'base64')) !== after) {
    return `${path} was ${now === undefined ? 'removed' : 'edited'} since, and stays as it is`;
  }
  if (before === undefined) {
    await rm(prefix + path, { force: true });
    await removeFolders(folders.map((folder) => prefix + folder));
    tell(`removed ${path}`);
  } else {
    await replaceFile(prefix + path, Buffer.from(before.content, 'base64'), before);
    tell(`restored ${path}`);
  }
  return undefined;
}

/** The folders that stasisd makes below its root hold nothing by themselves. */
async function destroyIfEmpty(zfs: Zfs, root: string): Promise<boolean> {
  const rows = await zfs
    .list({ root, types: ['filesystem', 'snapshot'], properties: ['type'] })
    .catch((error: unknown) => {
      if (error instanceof NotFound) return [];
      throw error;
    });
  const own = new Set(['', '/layers', '/containers', '/trash', '/reading'].map((leaf) => root + leaf));
  if (rows.some(({ name }) => !own.has(name))) return false;
  for (const { name } of rows.toReversed()) await zfs.destroy(name);
  return true;
}

/**
 * Restarts containerd and waits until it answers and has our plugin.
 * @throws Unavailable where it does not come back, FailedPrecondition where it comes without the plugin
 */
export async function restartContainerd({
  exec,
  config,
  withoutPlugin = false,
}: Surroundings & { withoutPlugin?: boolean }): Promise<void> {
  await systemctl(exec, ['restart', 'containerd.service'], 'see: journalctl -u containerd');
  const containerd = new Containerd(config.containerd.address);
  try {
    const deadline = Date.now() + RETURN_TIMEOUT_MS;
    for (;;) {
      const plugins = await containerd
        .plugins([`type==io.containerd.snapshotter.v1,id==${snapshotterName}`])
        .catch((error: unknown) => messageOf(error));
      if (typeof plugins !== 'string') {
        if (withoutPlugin) return;
        const [plugin] = plugins;
        if (plugin !== undefined && plugin.initErr === undefined) return;
        throw new FailedPrecondition(
          `containerd is back without the snapshotter ${snapshotterName}: ${plugin?.initErr?.message ?? 'it did not read its entry'}`,
          { subject: 'containerd', reason: 'plugin-missing', remedy: 'see: journalctl -u containerd' },
        );
      }
      if (Date.now() > deadline) {
        throw new Unavailable(`containerd does not answer after its restart: ${plugins}`, {
          subject: config.containerd.address,
          reason: 'containerd-gone',
          remedy: 'see: journalctl -u containerd',
        });
      }
      await sleep(RETURN_POLL_MS);
    }
  } finally {
    containerd.close();
  }
}

async function systemctl(exec: Exec, args: readonly string[], remedy: string): Promise<void> {
  const { exitCode, stderr, spawnError } = await exec('systemctl', args, { timeoutMs: START_TIMEOUT_MS });
  if (exitCode === 0) return;
  const why = spawnError ?? (stderr.trim().split('\n')[0] || `it ended with ${exitCode ?? 'a signal'}`);
  throw new FailedPrecondition(`systemctl ${args.join(' ')}: ${why}`, {
    subject: args.at(-1),
    reason: 'service-failed',
    remedy,
  });
}

async function succeeds(exec: Exec, args: readonly string[]): Promise<boolean> {
  return (await exec('systemctl', args, { timeoutMs: 10_000 })).exitCode === 0;
}

function zfsOf({ exec, config }: Surroundings): Promise<Zfs> {
  return openZfs(exec, { zfs: config.zfs.zfs_path, zpool: config.zfs.zpool_path });
}
