/**
 * What setup changed, so that it can be undone to the last byte: one file of JSON, and a copy of each file that was there
 * before. An entry is written before its change is made, so a crash in between leaves an entry that undoes nothing.
 */
import { createHash } from 'node:crypto';
import { chmod, chown, mkdir, open, readFile, realpath, rename, rm, rmdir, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { FailedPrecondition, hasErrno, messageOf, ResourceExhausted } from '../errors.ts';

export const STATE_FOLDER = '/var/lib/stasis/setup';

export type Entry =
  | {
      readonly kind: 'file';
      readonly path: string;
      /** Content before, as base64, with mode and owner; undefined where the file was not there. */
      readonly before:
        | { readonly content: string; readonly mode: number; readonly uid: number; readonly gid: number }
        | undefined;
      /** Folders that were made for it, the outermost first. */
      readonly folders: readonly string[];
      /** SHA-256 of what setup wrote. */
      readonly after: string;
      /** What setup wrote, to know it again. */
      readonly text: string;
    }
  | { readonly kind: 'dataset'; readonly name: string }
  | { readonly kind: 'service'; readonly enabled: boolean; readonly active: boolean };

export interface State {
  readonly format: 1;
  readonly entries: readonly Entry[];
}

/** The record of what was changed; each call that changes it writes it through to the disk. */
export class SetupState {
  readonly #path: string;
  readonly #prefix: string;
  #entries: Entry[] = [];

  private constructor(prefix: string) {
    this.#prefix = prefix;
    this.#path = join(prefix + STATE_FOLDER, 'state.json');
  }

  /** @throws FailedPrecondition where it cannot be read */
  static async load(prefix: string): Promise<SetupState> {
    const state = new SetupState(prefix);
    try {
      state.#entries = [...(JSON.parse(await readFile(state.#path, 'utf8')) as State).entries];
    } catch (error) {
      if (!hasErrno(error, 'ENOENT')) throw fileError('read', state.#path, error);
    }
    return state;
  }

  get entries(): readonly Entry[] {
    return this.#entries;
  }

  /** What setup wrote to a file the last time. */
  written(path: string): string | undefined {
    return this.#entries
      .flatMap((entry) => (entry.kind === 'file' && entry.path === path ? [entry.text] : []))
      .at(-1);
  }

  /** @throws where it cannot be written; the entry is then not in it, as its change is not to be made */
  async add(entry: Entry): Promise<void> {
    this.#entries.push(entry);
    try {
      await this.#save();
    } catch (error) {
      this.#entries.pop();
      throw error;
    }
  }

  async remove(entry: Entry): Promise<void> {
    this.#entries = this.#entries.filter((one) => one !== entry);
    await this.#save();
  }

  async #save(): Promise<void> {
    if (this.#entries.length === 0) {
      await rm(this.#prefix + STATE_FOLDER, { recursive: true, force: true });
      await removeFolders([dirname(this.#prefix + STATE_FOLDER)]);
      return;
    }
    const state: State = { format: 1, entries: this.#entries };
    await mkdir(this.#prefix + STATE_FOLDER, { recursive: true, mode: 0o700 }).catch((error: unknown) => {
      throw fileError('make', STATE_FOLDER, error);
    });
    await replaceFile(this.#path, Buffer.from(`${JSON.stringify(state, null, 2)}\n`), { mode: 0o600 });
  }
}

export function sha256(content: Buffer | string): string {
  return createHash('sha256').update(content).digest('hex');
}

/**
 * Replaces a file in one step: a reader, or a crash, sees the old content or the new one. A symbolic link stays one.
 * @throws FailedPrecondition, ResourceExhausted naming the file; the old one is then as it was
 */
export async function replaceFile(
  path: string,
  content: Buffer,
  { mode, uid, gid }: { mode: number; uid?: number; gid?: number },
): Promise<void> {
  const target = await realpath(path).catch(() => path);
  const part = `${target}.stasis-part`;
  try {
    const file = await open(part, 'w', mode);
    try {
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    await chmod(part, mode); // whatever the umask is
    if (uid !== undefined && gid !== undefined) await chown(part, uid, gid);
    await rename(part, target);
    const folder = await open(dirname(target), 'r');
    await folder.sync().finally(() => folder.close());
  } catch (error) {
    await rm(part, { force: true }).catch(() => undefined);
    throw fileError('write', path, error);
  }
}

/** Content, mode and owner of a file; undefined where there is none. */
export async function readWhole(path: string) {
  try {
    const [content, { mode, uid, gid }] = await Promise.all([readFile(path), stat(path)]);
    return { content: content.toString('base64'), mode: mode & 0o7777, uid, gid };
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return undefined;
    throw fileError('read', path, error);
  }
}

/** The folders above a file that are missing, the outermost first. */
export async function missingFolders(path: string): Promise<string[]> {
  const missing: string[] = [];
  for (let folder = dirname(path); !(await exists(folder)); folder = dirname(folder)) missing.unshift(folder);
  return missing;
}

export async function makeFolders(folders: readonly string[]): Promise<void> {
  for (const folder of folders) {
    await mkdir(folder, { mode: 0o755 }).catch((error: unknown) => {
      throw fileError('make', folder, error);
    });
  }
}

/** Removes folders that are empty. */
export async function removeFolders(folders: readonly string[]): Promise<void> {
  for (const folder of folders.toReversed()) await rmdir(folder).catch(() => undefined);
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

function fileError(verb: string, path: string, error: unknown): Error {
  const full = hasErrno(error, 'ENOSPC') || hasErrno(error, 'EDQUOT');
  const Kind = full ? ResourceExhausted : FailedPrecondition;
  return new Kind(`cannot ${verb} ${path}: ${messageOf(error)}`, {
    subject: path,
    cause: error,
    reason: full ? 'disk-full' : 'file-error',
    remedy: full
      ? 'make room on that file system, and try again'
      : hasErrno(error, 'EROFS')
        ? 'mount its file system writable, and try again'
        : 'see the reason, and try again',
  });
}
