import { rm } from 'node:fs/promises';
import { rootProperties } from '../../snapshotter/load.ts';
import { socketPath } from '../config/config.ts';
import { AlreadyExists, FailedPrecondition, messageOf } from '../errors.ts';
import { openZfs, type Zfs } from '../zfs/zfs.ts';
import { destroyIfEmpty } from './dataset.ts';
import { DROP_IN, namesDropIn, withoutImport } from './containerd-config.ts';
import { readIfThere, type Surroundings } from './facts.ts';
import type { Step } from './plan.ts';
import { listens, restartContainerd, START_TIMEOUT_MS, succeeds, systemctl } from './services.ts';
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
 * @param signal is looked at between two steps
 * @throws what the step threw, or the signal's reason
 */
export async function applySteps(
  steps: readonly Step[],
  around: Surroundings,
  state: SetupState,
  tell: Tell,
  signal?: AbortSignal,
): Promise<void> {
  const before = state.entries.length;
  let restarted = false;
  try {
    for (const step of steps) {
      signal?.throwIfAborted();
      tell(describe(step));
      if (step.kind === 'restart-containerd') {
        restarted = true;
        await restartContainerd(around);
      } else await change(step, around, state);
    }
    signal?.throwIfAborted();
  } catch (error) {
    tell(signal?.aborted === true ? 'cancelled; undoing it' : `failed: ${messageOf(error)}; undoing it`);
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

/** What undoing an entry would do, a line; files are looked at. */
export async function describeUndo(entry: Entry, { prefix }: Surroundings): Promise<string> {
  switch (entry.kind) {
    case 'file': {
      const now = await readWhole(prefix + entry.path);
      if (now === undefined) return `leave ${entry.path} alone, which was removed since`;
      if (
        now.content !== entry.before?.content &&
        sha256(Buffer.from(now.content, 'base64')) !== entry.after
      ) {
        const import_ = withoutImport(Buffer.from(now.content, 'base64').toString('utf8')) !== undefined;
        return `leave ${entry.path} as it is, which was edited since${import_ ? `, but take the import of ${DROP_IN} out` : ''}`;
      }
      return `${entry.before === undefined ? 'remove' : 'restore'} ${entry.path}`;
    }
    case 'dataset':
      return `destroy the dataset ${entry.name}, if nothing is in it`;
    case 'service':
      return `stop and disable ${SERVICE}, as it was`;
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
      return undoFile(entry, around, tell);
    case 'service':
      if (!entry.active) await around.exec('systemctl', ['stop', SERVICE], { timeoutMs: START_TIMEOUT_MS });
      if (!entry.enabled)
        await around.exec('systemctl', ['disable', '--quiet', SERVICE], { timeoutMs: START_TIMEOUT_MS });
      tell(`${SERVICE} is as it was`);
      return undefined;
    case 'dataset': {
      if (keepData) return `the dataset ${entry.name} stays, with all that is in it`;
      if (await listens(around.prefix + socketPath(around.config)))
        throw new FailedPrecondition('stasisd runs and serves it: stop stasisd first');
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
  { prefix, containerdConfig: main }: Surroundings,
  tell: Tell,
): Promise<string | undefined> {
  const now = await readWhole(prefix + path);
  if (now?.content === before?.content) {
    // Never written, or restored by hand; but its folders may have been made.
    if (before === undefined) await removeFolders(folders.map((folder) => prefix + folder));
    return undefined;
  }
  if (now === undefined) return `${path} was removed since, and stays so`;
  if (sha256(Buffer.from(now.content, 'base64')) !== after) {
    const text = Buffer.from(now.content, 'base64').toString('utf8');
    const shorter = withoutImport(text);
    if (shorter === undefined) return `${path} was edited since, and stays as it is`;
    await replaceFile(prefix + path, Buffer.from(shorter), now);
    return `${path} was edited since: it stays as it is, but for the import of ${DROP_IN}, which was taken out`;
  }
  if (
    before === undefined &&
    path === DROP_IN &&
    namesDropIn((await readIfThere(prefix + main).catch(() => undefined)) ?? '')
  ) {
    // Edited so that the import could not be taken out: without the file containerd would not start.
    await replaceFile(prefix + path, Buffer.from('# Of stasis, which is not here any more.\n'), {
      mode: 0o644,
    });
    return `${path} is empty now, and stays, as ${main} imports it: take it out there, then remove it`;
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
