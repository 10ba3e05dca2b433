// The disk half of a stock client's checkpoint. The client keeps the memory alone, in a folder of its own; a file of ours in
// that folder names the disk's snapshot, so that both come back together.
import { readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { diskProperties, newCheckpointId, properties } from '../../src/checkpoint/entry.ts';
import type { DiskPlan } from '../../src/checkpoint/instant.ts';
import { STOCK_FILE } from '../../src/checkpoint/stock.ts';
import { shimSocketPath, type Config } from '../../src/config/config.ts';
import { hasErrno, InvalidArgument, messageOf, Unavailable } from '../../src/errors.ts';
import { DisksDefinition, type NoteRequest, type RewindStep } from '../../src/proto/gen/stasis/internal.ts';
import type { Mount } from '../../src/sys/mount.ts';
import { readMountTable } from '../../src/sys/mount-table.ts';
import { Client } from '../../ttrpc/index.ts';

/** What is in the file. */
interface StockFile {
  readonly version: 1;
  readonly checkpoint: string;
  /** `dataset@name` */
  readonly snapshot: string;
  readonly namespace: string;
  readonly container: string;
  /** Nanoseconds since 1970. */
  readonly created: string;
}

/** Milliseconds: a note that stasisd does not take is found at its next start. */
const NOTE_TIMEOUT_MS = 1000;
/** Milliseconds that the disk may take to come back, another operation on the same container included. */
const REWIND_TIMEOUT_MS = 60_000;

/** The disk half that is to be made, and the file that names it. */
export interface StockDisk {
  readonly plan: DiskPlan;
  readonly file: StockFile;
}

/** @returns undefined where the root file system is not on our snapshotter */
export async function planStockDisk(
  config: Config,
  namespace: string,
  container: string,
  mounts: readonly Mount[],
): Promise<StockDisk | undefined> {
  const source = ourMount(config, mounts)?.source;
  if (source === undefined) return undefined;
  const table = await readMountTable();
  const entry = table.findLast(({ target, type }) => target === dirname(source) && /(^|\.)zfs$/.test(type));
  if (entry === undefined) return undefined;
  const [id, createdNs] = [newCheckpointId(), BigInt(Date.now()) * 1_000_000n];
  const snapshot = `${entry.source}@stock-${id}`;
  const identity = diskProperties({ id, name: `stock-${id}`, set: '', namespace, container, createdNs });
  return {
    plan: { snapshot, properties: { ...identity, [properties.half]: 'external' }, syncPath: source },
    file: { version: 1, checkpoint: id, snapshot, namespace, container, created: String(createdNs) },
  };
}

/**
 * Names the disk half in the image folder, and tells stasisd of it, whose next start finds it otherwise.
 * @param isOwn whether the folder is containerd's own, and no client's: stasisd then follows what becomes of it, and has to look before
 *   the file is there (src/checkpoint/unread-memory.ts)
 */
export async function recordStockDisk(
  config: Config,
  imageDir: string,
  { file }: StockDisk,
  isOwn: boolean,
): Promise<void> {
  if (isOwn) await note(config, { snapshot: file.snapshot, folder: imageDir });
  await writeFile(join(imageDir, STOCK_FILE), `${JSON.stringify(file)}\n`, { mode: 0o600, flag: 'wx' });
  if (!isOwn) await note(config, { snapshot: file.snapshot, folder: '' });
}

async function note(config: Config, request: NoteRequest): Promise<void> {
  const signal = AbortSignal.timeout(NOTE_TIMEOUT_MS);
  const client = await Client.connect(shimSocketPath(config), { signal }).catch(() => undefined);
  await client
    ?.service(DisksDefinition)
    .note(request, { signal })
    .catch(() => undefined);
  client?.close();
}

/** A disk that was brought back for a restore which has still to succeed. */
export interface ReturnedDisk {
  /** The root file system to mount instead of the client's. */
  readonly mounts: readonly Mount[];
  /** The restore succeeded. */
  keep(): Promise<void>;
  /** It did not, and nothing is mounted any more: the disk goes back to what it was. */
  giveUp(): void;
}

/**
 * Brings the disk back that belongs to the memory in `imageDir`, where that is a checkpoint of this very container; a
 * container of another name has the disk that its client made.
 * @returns undefined where the disk stays as it is
 * @throws FailedPrecondition where the disk half is gone; Unavailable without stasisd: memory must never meet another disk
 */
export async function bringDiskBack(
  config: Config,
  namespace: string,
  container: string,
  mounts: readonly Mount[],
  imageDir: string,
): Promise<ReturnedDisk | undefined> {
  const file = await readStockFile(imageDir);
  const mine = ourMount(config, mounts);
  if (file === undefined || mine === undefined) return undefined;
  if (file.namespace !== namespace || file.container !== container) return undefined;
  const path = shimSocketPath(config);
  const client = await Client.connect(path, { signal: AbortSignal.timeout(REWIND_TIMEOUT_MS) }).catch(
    (error: unknown) => {
      throw new Unavailable(
        `the disk that belongs to the memory of ${container} cannot be brought back: stasisd does not answer at ${path}`,
        { subject: container, cause: error, remedy: 'start stasisd, then start the container again' },
      );
    },
  );
  const decision = new Decision();
  const { snapshot, checkpoint } = file;
  const first: RewindStep = {
    ...{ namespace, container, snapshot, checkpoint },
    ...{ source: mine.source, createdNs: BigInt(file.created), keep: false },
  };
  const timer = setTimeout(() => client.close(), REWIND_TIMEOUT_MS);
  try {
    const answers = client.service(DisksDefinition).rewind(decision.after(first));
    const answer = await answers.next();
    const source = answer.done === true ? '' : answer.value.source;
    if (source === '') {
      client.close();
      return undefined;
    }
    return {
      mounts: mounts.map((mount) => (mount === mine ? { ...mount, source } : mount)),
      keep: async () => {
        decision.keep({ ...first, keep: true });
        while ((await answers.next()).done !== true);
        client.close();
      },
      giveUp: () => client.close(),
    };
  } catch (error) {
    client.close();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/** The messages of one Rewind: the question at once, the decision when it has been made. */
class Decision {
  #keep: (step: RewindStep) => void = () => undefined;
  readonly #made = new Promise<RewindStep>((resolve) => (this.#keep = resolve));

  keep(step: RewindStep): void {
    this.#keep(step);
  }

  async *after(first: RewindStep): AsyncGenerator<RewindStep> {
    yield first;
    yield await this.#made;
  }
}

/** stasisd hands out binds of what it mounts below the run folder. */
function ourMount({ daemon }: Config, mounts: readonly Mount[]): Mount | undefined {
  return mounts.find(({ source }) => source.startsWith(`${daemon.run_dir}/mnt/`));
}

/** @throws InvalidArgument for a file that is not as we write it */
async function readStockFile(imageDir: string): Promise<StockFile | undefined> {
  const path = join(imageDir, STOCK_FILE);
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
  try {
    const file = JSON.parse(text) as StockFile;
    if (file.version !== 1) throw new Error(`version ${String(file.version)} is not known here`);
    for (const name of ['checkpoint', 'snapshot', 'namespace', 'container', 'created'] as const) {
      if (typeof file[name] !== 'string' || file[name] === '') throw new Error(`${name} is missing`);
    }
    return file;
  } catch (error) {
    throw new InvalidArgument(`${path} is not understood: ${messageOf(error)}`, {
      subject: path,
      cause: error,
    });
  }
}
