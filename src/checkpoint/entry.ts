import { randomBytes } from 'node:crypto';
import { datasetOf } from '../zfs/names.ts';
import type { Properties, Row } from '../zfs/zfs.ts';

/** Durations of a checkpoint's phases in nanoseconds. */
export interface Timings {
  frozenNs: number;
  freezeNs: number;
  dumpNs: number;
  syncNs: number;
  snapshotNs: number;
  storeNs: number;
  totalNs: number;
}

export type Memory = 'image' | 'none' | 'external';
export type Disk = 'snapshot' | 'diff';

/** A whole checkpoint, as its snapshots' properties tell it. */
export interface CheckpointEntry {
  /** Unique on the host; what the label `stasis.checkpoint` of a clone's snapshot names. */
  readonly id: string;
  readonly namespace: string;
  readonly container: string;
  readonly name: string;
  /** Id of the set that it was taken in, with others at one instant and under one name; empty where it was alone. */
  readonly set: string;
  readonly createdNs: bigint;
  readonly memory: Memory;
  readonly disk: Disk;
  /** `dataset@name` of the disk; for a diff, that of the dataset that holds it. */
  readonly snapshot: string;
  /** `dataset@name` of the memory image and the record; undefined where a stock client holds the memory. */
  readonly memorySnapshot: string | undefined;
  readonly memoryBytes: number;
  /** Bytes that were written to the pool for it; undefined for one of before this was counted. */
  readonly writtenBytes?: number | undefined;
  /** The checkpoint that it is a second name for, by its id and name: nothing had run since that one was taken. */
  readonly unchangedSince?: { readonly id: string; readonly name: string } | undefined;
  readonly memoryError: string;
  readonly image: string;
  readonly runtime: string;
  readonly timings: Timings;
}

/** ZFS user properties of a checkpoint's snapshots. */
export const properties = {
  /** On both snapshots: the checkpoint's id. */
  checkpoint: 'stasis:checkpoint',
  /** On both: the checkpoint's name. The snapshot has the same name, but for a suffix where that was not free. */
  name: 'stasis:checkpoint-name',
  /** On both: `<namespace>/<container>`. */
  container: 'stasis:checkpoint-of',
  /** On both: nanoseconds since 1970. */
  created: 'stasis:checkpoint-created',
  /** On both: which half this snapshot is: `disk` (whose memory half must follow), `external` (complete by itself) or `memory`. */
  half: 'stasis:checkpoint-half',
  /** On both, for one of a set: the set's id. */
  set: 'stasis:checkpoint-set',
  /** On the root dataset: ids of sets that are not whole yet, with commas between. */
  unfinishedSets: 'stasis:unfinished-sets',
  /** On the memory's: the rest, as JSON. */
  report: 'stasis:checkpoint-report',
} as const;

/** ZFS's own: `on` for a snapshot that was destroyed while clones stand on it. It is gone for us. */
export const deferProperty = 'defer_destroy';

/** The part of an entry that the report property carries. */
interface Report {
  memory: Memory;
  disk: Disk;
  bytes: number;
  written?: number | undefined;
  same?: { id: string; name: string } | undefined;
  error: string;
  image: string;
  runtime: string;
  /** frozen, freeze, dump, sync, snapshot, store, total */
  ns: number[];
}

const MAX_TEXT = 300;

/** A new id: time first, so that ids sort by age. */
export function newCheckpointId(now = Date.now()): string {
  return `${now.toString(36)}-${randomBytes(5).toString('hex')}`;
}

export type Identity = Pick<CheckpointEntry, 'id' | 'name' | 'set' | 'namespace' | 'container' | 'createdNs'>;

/** The id under which the content of a checkpoint was first kept. */
export function contentOf(entry: Pick<CheckpointEntry, 'id' | 'unchangedSince'>): string {
  return entry.unchangedSince?.id ?? entry.id;
}

/** Properties for the disk half, known before the dump. */
export function diskProperties(entry: Identity): Properties {
  return { ...identity(entry), [properties.half]: 'disk' };
}

/** Properties for the memory half, whose snapshot completes the checkpoint. */
export function memoryProperties(entry: CheckpointEntry): Properties {
  const { timings: t } = entry;
  const report: Report = {
    memory: entry.memory,
    disk: entry.disk,
    bytes: entry.memoryBytes,
    written: entry.writtenBytes,
    same: entry.unchangedSince,
    error: ascii(entry.memoryError),
    image: ascii(entry.image),
    runtime: ascii(entry.runtime),
    ns: [t.frozenNs, t.freezeNs, t.dumpNs, t.syncNs, t.snapshotNs, t.storeNs, t.totalNs].map(Math.round),
  };
  return { ...identity(entry), [properties.half]: 'memory', [properties.report]: JSON.stringify(report) };
}

function identity(entry: Identity): Properties {
  return {
    [properties.checkpoint]: entry.id,
    [properties.name]: entry.name,
    [properties.container]: `${entry.namespace}/${entry.container}`,
    [properties.created]: String(entry.createdNs),
    ...(entry.set === '' ? {} : { [properties.set]: entry.set }),
  };
}

/**
 * Properties by which one command snapshots the disks of a whole set. What tells them apart is set afterwards; a disk
 * half that never got its `stasis:checkpoint` is an orphan.
 */
export function setProperties({ name, set, createdNs }: Identity): Properties {
  return {
    [properties.name]: name,
    [properties.created]: String(createdNs),
    [properties.set]: set,
    [properties.half]: 'disk',
  };
}

/** The rest of what diskProperties says. */
export function memberProperties({ id, namespace, container }: Identity): Properties {
  return { [properties.checkpoint]: id, [properties.container]: `${namespace}/${container}` };
}

/**
 * Pairs the halves that a listing shows. Copies that came from elsewhere have the same ids: what is here comes before them, and halves of
 * two copies are never taken for a whole. `orphans` are halves whose other half is missing; `retired` are destroyed already, and wait for
 * their last clone.
 */
export function entryFromRows(rows: readonly Row[]): {
  entries: CheckpointEntry[];
  orphans: { snapshot: string; why: string }[];
  retired: string[];
} {
  const disks: Row[] = [];
  const memories: Row[] = [];
  const orphans: { snapshot: string; why: string }[] = [];
  const retired: string[] = [];
  for (const row of rows) {
    if (value(row, properties.checkpoint) === undefined) {
      if (row.type === 'snapshot' && value(row, properties.set) !== undefined)
        orphans.push({ snapshot: row.name, why: 'the set that it belongs to was never finished' });
    } else if (row.properties.get(deferProperty)?.value === 'on') retired.push(row.name);
    else (value(row, properties.half) === 'memory' ? memories : disks).push(row);
  }
  const entries: CheckpointEntry[] = [];
  const halves = new Halves(disks);
  // What lies in its place goes first, and what is left over is looked at by the id alone.
  const strays = memories.filter((memory) => !joined(entries, memory, halves.beside(memory)));
  for (const memory of strays) {
    if (!joined(entries, memory, halves.elsewhere(memory)))
      orphans.push({ snapshot: memory.name, why: 'its disk half is missing' });
  }
  for (const disk of halves.left()) {
    if (value(disk, properties.half) === 'external') {
      entries.push(build(value(disk, properties.checkpoint) ?? '', disk, undefined, undefined));
    } else {
      orphans.push({ snapshot: disk.name, why: 'its memory half was never finished' });
    }
  }
  const received = new Set(rows.filter(isReceived).map(({ name }) => name));
  const rank = ({ snapshot }: CheckpointEntry): number => (received.has(snapshot) ? 1 : 0);
  return { entries: entries.sort((one, other) => rank(one) - rank(other)), orphans, retired };
}

/** Disk halves by id, each given away once. */
class Halves {
  readonly #byId = new Map<string, Row[]>();

  constructor(disks: readonly Row[]) {
    for (const disk of disks) {
      const id = value(disk, properties.checkpoint) ?? '';
      this.#byId.set(id, [...(this.#byId.get(id) ?? []), disk]);
    }
  }

  /** The one whose file system the memory's is below. */
  beside(memory: Row): Found {
    const place = datasetOf(memory.name);
    return this.#of(memory, (disk) => place === `${datasetOf(disk.name)}/memory`);
  }

  /** Any that came, or was made here, as the memory did. */
  elsewhere(memory: Row): Found {
    return this.#of(memory, (disk) => isReceived(disk) === isReceived(memory));
  }

  left(): Row[] {
    return [...this.#byId.values()].flat();
  }

  #of(memory: Row, suits: (disk: Row) => boolean): Found {
    const id = value(memory, properties.checkpoint) ?? '';
    const all = this.#byId.get(id) ?? [];
    const disk = all.find((each) => value(each, properties.half) !== 'external' && suits(each));
    return {
      disk,
      take: () =>
        this.#byId.set(
          id,
          all.filter((each) => each !== disk),
        ),
    };
  }
}

interface Found {
  readonly disk: Row | undefined;
  readonly take: () => void;
}

/** Makes a checkpoint of a memory half and the disk half for it, where the memory's says that it needs no more. */
function joined(entries: CheckpointEntry[], memory: Row, { disk, take }: Found): boolean {
  const report = parseReport(value(memory, properties.report));
  if (report === undefined || (disk === undefined && report.disk === 'snapshot')) return false;
  entries.push(build(value(memory, properties.checkpoint) ?? '', disk, memory, report));
  take();
  return true;
}

/** Whether what a snapshot says of a checkpoint came with `zfs receive`. */
export function isReceived(row: Row): boolean {
  return [properties.checkpoint, properties.set].some(
    (name) => row.properties.get(name)?.source === 'received',
  );
}

function build(
  id: string,
  disk: Row | undefined,
  memory: Row | undefined,
  report: Report | undefined,
): CheckpointEntry {
  const row = disk ?? memory;
  if (row === undefined) throw new TypeError('a checkpoint needs one of its halves');
  const [namespace = '', ...rest] = (value(row, properties.container) ?? '').split('/');
  const [frozenNs = 0, freezeNs = 0, dumpNs = 0, syncNs = 0, snapshotNs = 0, storeNs = 0, totalNs = 0] =
    report?.ns ?? [];
  return {
    id,
    namespace,
    container: rest.join('/'),
    name: value(row, properties.name) ?? snapshotName(row.name),
    set: value(row, properties.set) ?? '',
    createdNs: BigInt(value(row, properties.created) ?? '0'),
    memory: report?.memory ?? 'external',
    disk: report?.disk ?? 'snapshot',
    snapshot: row.name,
    memorySnapshot: memory?.name,
    memoryBytes: report?.bytes ?? 0,
    writtenBytes: report?.written,
    unchangedSince: report?.same,
    memoryError: report?.error ?? '',
    image: report?.image ?? '',
    runtime: report?.runtime ?? '',
    timings: { frozenNs, freezeNs, dumpNs, syncNs, snapshotNs, storeNs, totalNs },
  };
}

function parseReport(text: string | undefined): Report | undefined {
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text) as Report;
  } catch {
    return undefined; // not written by us, or cut off: treated as a half that is missing
  }
}

function value(row: Row, property: string): string | undefined {
  const found = row.properties.get(property);
  return found === undefined || found.source === 'inherited' ? undefined : found.value;
}

function snapshotName(name: string): string {
  return name.slice(name.indexOf('@') + 1);
}

/** Property values are printable ASCII and short. */
function ascii(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]/g, '?').slice(0, MAX_TEXT);
}
