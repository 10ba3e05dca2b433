import { deferProperty } from '../src/checkpoint/entry.ts';
import { InvalidArgument } from '../src/errors.ts';
import type { WallTime } from '../src/sys/clock.ts';
import { MAX_VALUE } from '../src/zfs/names.ts';
import type { Properties, Property, Row } from '../src/zfs/zfs.ts';
import type { DatasetState, Labels, Snapshot, SnapshotKind } from './snapshot.ts';

/** User properties of the layout; docs/zfs-layout.md describes each. */
export const property = {
  key: 'stasis:key',
  parent: 'stasis:parent',
  kind: 'stasis:kind',
  owner: 'stasis:owner',
  created: 'stasis:created',
  labels: 'stasis:labels',
  generation: 'stasis:generation',
  state: 'stasis:state',
  checkpoint: 'stasis:checkpoint',
  inodes: 'stasis:inodes',
} as const;

/** What one listing has to ask for to rebuild the index. */
export const indexed: readonly string[] = ['origin', 'referenced', deferProperty, ...Object.values(property)];

/** Chunks of one long label set: more than containerd's own limits let through in practice. */
const MAX_CHUNKS = 64;

/**
 * The properties that the command which makes a snapshot's dataset writes.
 * @throws InvalidArgument for a key that does not fit
 */
export function toProperties(snapshot: Omit<Snapshot, 'dataset'>): Properties {
  const { length } = encodeText(snapshot.name);
  if (length > MAX_VALUE) {
    const { name } = snapshot;
    throw new InvalidArgument(
      `the snapshot's key is too long: ${length} bytes with namespace and number, and ${MAX_VALUE} fit: ${encodeText(name).slice(0, 64)}…`,
      {
        subject: name,
        reason: 'key-too-long',
        remedy: 'choose a shorter key; what is not ASCII counts three times',
      },
    );
  }
  return {
    ...labelProperties(snapshot.labels, snapshot.updated, 'a'),
    [property.key]: encodeText(snapshot.name),
    ...(snapshot.parent === '' ? {} : { [property.parent]: encodeText(snapshot.parent) }),
    [property.kind]: snapshot.kind,
    [property.owner]: encodeText(snapshot.owner),
    [property.created]: encodeTime(snapshot.created),
    [property.generation]: String(snapshot.generation),
  };
}

/**
 * Labels and the time of their last change, in one property, so that zfs-fuse, which sets one property a
 * command, changes both at once: `<seconds>.<nanoseconds> {"label":"value"}`. A set that does not fit is split
 * over `stasis:labels.<set><n>`, and the head says `<time> *<set><count>`: writing the head last makes the change
 * atomic, because the next change writes the other set.
 */
export function labelProperties(labels: Labels, updated: WallTime, set: 'a' | 'b'): Properties {
  const time = encodeTime(updated);
  const json = asciiJson(labels);
  if (time.length + 1 + json.length <= MAX_VALUE) return { [property.labels]: `${time} ${json}` };
  const chunks: [string, string][] = [];
  for (let at = 0; at < json.length; at += MAX_VALUE) {
    chunks.push([`${property.labels}.${set}${chunks.length}`, json.slice(at, at + MAX_VALUE)]);
  }
  if (chunks.length > MAX_CHUNKS) {
    throw new InvalidArgument(`labels of ${json.length} bytes are more than ${MAX_CHUNKS * MAX_VALUE}`, {
      subject: 'labels',
    });
  }
  return { ...Object.fromEntries(chunks), [property.labels]: `${time} *${set}${chunks.length}` };
}

/** The properties to ask for where a head says that labels are split, in order; empty where they are not. */
export function chunkProperties(head: string): string[] {
  const match = /^\S+ \*([ab])(\d+)$/.exec(head);
  if (match === null) return [];
  return Array.from({ length: Number(match[2]) }, (_, at) => `${property.labels}.${match[1] ?? 'a'}${at}`);
}

/** Which chunk set the next change has to write, given the head now. */
export function nextSet(head: string | undefined): 'a' | 'b' {
  return head !== undefined && /^\S+ \*a/.test(head) ? 'b' : 'a';
}

/**
 * Labels and time from a head property and the chunks that it names.
 * @throws InvalidArgument for what labelProperties did not write
 */
export function parseLabels(head: string, chunks: readonly string[]): { labels: Labels; updated: WallTime } {
  const space = head.indexOf(' ');
  const json = chunks.length === 0 ? head.slice(space + 1) : chunks.join('');
  let labels: unknown;
  try {
    labels = JSON.parse(json);
  } catch (error) {
    throw new InvalidArgument(`labels ${JSON.stringify(json.slice(0, 80))} are not JSON`, { cause: error });
  }
  if (
    typeof labels !== 'object' ||
    labels === null ||
    Object.values(labels).some((value) => typeof value !== 'string')
  ) {
    throw new InvalidArgument(`labels ${JSON.stringify(json.slice(0, 80))} are not a set of strings`);
  }
  return { labels: labels as Labels, updated: parseTime(head.slice(0, space)) };
}

/** What a dataset or snapshot has of its own; inherited properties describe something else. */
export function own(properties: ReadonlyMap<string, Property>, name: string): string | undefined {
  const found = properties.get(name);
  return found !== undefined && (found.source === 'local' || found.source === 'received')
    ? found.value
    : undefined;
}

/** Whether what a dataset or layer says of its owner came with `zfs receive`, and nobody has said otherwise here. */
export function isReceived({ properties }: Row): boolean {
  return properties.get(property.owner)?.source === 'received';
}

/**
 * The snapshot that a dataset's own properties describe; undefined where they describe none.
 * @param chunks label chunks, where the head names some
 */
export function fromProperties(
  properties: ReadonlyMap<string, Property>,
  dataset: string,
  chunks: readonly string[],
): Snapshot | undefined {
  const get = (name: string): string | undefined => own(properties, name);
  const [key, kind, owner, created, head] = [
    get(property.key),
    get(property.kind),
    get(property.owner),
    get(property.created),
    get(property.labels),
  ];
  if (key === undefined || owner === undefined || created === undefined || head === undefined)
    return undefined;
  if (kind !== 'active' && kind !== 'view' && kind !== 'committed') return undefined;
  const { labels, updated } = parseLabels(head, chunks);
  return {
    name: decodeText(key),
    kind: kind satisfies SnapshotKind,
    parent: decodeText(get(property.parent) ?? ''),
    labels,
    created: parseTime(created),
    updated,
    owner: decodeText(owner),
    generation: Number(get(property.generation) ?? 1),
    dataset,
  };
}

/** What to do about a dataset that describes no snapshot that can be understood. */
export const UNREADABLE_REMEDY =
  'set the property right with zfs set and restart stasisd (docs/zfs-layout.md lists them), or destroy it: stasis adopt --drop DATASET';

/** What is wrong where own properties describe no snapshot though there are some of one; undefined where there are none. */
export function faultOf(properties: ReadonlyMap<string, Property>): string | undefined {
  const needed = [property.key, property.kind, property.owner, property.created, property.labels];
  const missing = needed.filter((name) => own(properties, name) === undefined);
  if (missing.length === needed.length) return undefined;
  if (missing.length > 0) return `it has no ${missing.join(', ')}`;
  return `${property.kind} is ${JSON.stringify(own(properties, property.kind))}`;
}

/** A state carries since when, in the same property: one command on either kind of ZFS. */
export function stateValue(state: Exclude<DatasetState, 'live'>, seconds: number): string {
  return `${state} ${Math.floor(seconds)}`;
}

export function parseState(value: string | undefined): { state: DatasetState; since: number } {
  const match = value === undefined ? null : /^(superseded|removed|adopted)(?: (\d+))?$/.exec(value);
  if (match === null) return { state: 'live', since: 0 };
  return { state: match[1] as DatasetState, since: Number(match[2] ?? 0) };
}

/** Printable ASCII from any text: `%` and every byte outside it become `%XX` of UTF-8. */
export function encodeText(text: string): string {
  return [...Buffer.from(text, 'utf8')]
    .map((byte) =>
      byte < 0x20 || byte > 0x7e || byte === 0x25
        ? `%${byte.toString(16).toUpperCase().padStart(2, '0')}`
        : String.fromCharCode(byte),
    )
    .join('');
}

export function decodeText(text: string): string {
  return decodeURIComponent(text.replace(/%(?![0-9A-F]{2})/g, '%25'));
}

export function encodeTime(time: WallTime): string {
  return `${time.seconds}.${String(time.nanos).padStart(9, '0')}`;
}

export function parseTime(text: string): WallTime {
  const match = /^(\d+)\.(\d{9})$/.exec(text);
  if (match === null) throw new InvalidArgument(`${JSON.stringify(text)} is not a time`);
  return { seconds: BigInt(match[1] as string), nanos: Number(match[2]) };
}

/** JSON in printable ASCII. */
function asciiJson(value: unknown): string {
  return JSON.stringify(value).replace(
    /[^\x20-\x7e]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}
