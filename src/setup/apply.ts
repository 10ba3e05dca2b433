import { rm } from 'node:fs/promises';
import { rootProperties } from '../../snapshotter/load.ts';
import { AlreadyExists, messageOf } from '../errors.ts';
import { openZfs, type Zfs } from '../zfs/zfs.ts';
import { destroyIfEmpty } from './dataset.ts';
import type { Surroundings } from './facts.ts';
import type { Step } from './plan.ts';
import { restartContainerd, START_TIMEOUT_MS, succeeds, systemctl } from './services.ts';
import {
  type Entry,
  makeFolders,
  missingFolders,
  readWhole,
  removeFolders,
  replaceFile,
  type SetupState,
  sha256,
} from './state.ts';

const SERVICE = 'stasisd.service';

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
      const missing = await missingFolders(path);
      const folders = missing.map((folder) => folder.slice(around.prefix.length));
      const { path: named, text } = step;
      await state.add({ kind: 'file', path: named, before, folders, after: sha256(content), text });
      await makeFolders(missing);
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
 * Undoes entries, the last first. What was edited since is left as it is. What fails stays in the record, to be tried
 * again by the next `stasis setup --undo`, and what is left is undone all the same.
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
    try {
      const why = await undo(entry, around, keepData, tell);
      if (why !== undefined) left.push(why);
      await state.remove(entry);
    } catch (error) {
      left.push(`${nameOf(entry)} is not as it was: ${messageOf(error)}; to try again: stasis setup --undo`);
    }
  }
  return left;
}

function nameOf(entry: Entry): string {
  switch (entry.kind) {
    case 'file':
      return entry.path;
    case 'service':
      return SERVICE;
    case 'dataset':
      return `the dataset ${entry.name}`;
  }
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
      const outcome = await destroyIfEmpty(await zfsOf(around), entry.name);
      if (outcome === 'used')
        return `the dataset ${entry.name} is not empty and stays; to destroy it: zfs destroy -R ${entry.name}`;
      if (outcome === 'destroyed') tell(`destroyed the empty dataset ${entry.name}`);
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
  if (now?.content === before?.content) {
    // Never written, or restored by hand; but its folders may have been made.
    if (before === undefined) await removeFolders(folders.map((folder) => prefix + folder));
    return undefined;
  }
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

function zfsOf({ exec, config }: Surroundings): Promise<Zfs> {
  return openZfs(exec, { zfs: config.zfs.zfs_path, zpool: config.zfs.zpool_path });
}
