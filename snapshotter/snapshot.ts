import { InvalidArgument } from '../src/errors.ts';
import type { WallTime } from '../src/sys/clock.ts';

export type SnapshotKind = 'active' | 'view' | 'committed';
export type Labels = Readonly<Record<string, string>>;

/**
 * What a dataset is for. `live`: the snapshot of its key. `superseded`: an older generation of a key, kept for
 * its checkpoints. `removed`: its key is free again; it goes when nothing depends on it. `adopted`: taken over from
 * another containerd, ours, and not shown to containerd. Trash is told by the name.
 */
export type DatasetState = 'live' | 'superseded' | 'removed' | 'adopted';

/** A snapshot in containerd's sense, as its dataset's user properties describe it. */
export interface Snapshot {
  /** containerd's name: `<namespace>/<sequence>/<key>`, any characters. */
  readonly name: string;
  readonly kind: SnapshotKind;
  /** Name of the parent; empty for none. */
  readonly parent: string;
  readonly labels: Labels;
  readonly created: WallTime;
  readonly updated: WallTime;
  /** UUID of the containerd that it belongs to. */
  readonly owner: string;
  /** Rewinds make a new dataset with the next generation under the same name: the highest is the current one. */
  readonly generation: number;
  /** The file system that holds it. */
  readonly dataset: string;
}

/** The snapshot of a committed dataset from which children are cloned. */
export const LAYER = 'layer';
/** The folder in a dataset that holds the files: `.zfs` lies beside it, so that no container sees it. */
export const ROOTFS = 'rootfs';
/** Snapshots whose name starts so are being unpacked: containerd's own prefix for them. */
const EXTRACTION = /(^|\/)extract-[^/]*$/;
/** The label that names the chain id of the layer which is being made. */
export const REF_LABEL = 'containerd.io/snapshot.ref';
/** The digest of the unpacked layer alone, and the chain id of what is below it; containerd 2.3, core/unpack. */
export const DIFF_LABEL = 'containerd.io/snapshot/diff-id';
export const PARENT_CHAIN_LABEL = 'containerd.io/snapshot/parent-chain-id';
/** The label by which a client asks for a checkpoint's disk instead of the parent's. */
export const CHECKPOINT_LABEL = 'containerd.io/snapshot/stasis.checkpoint';
/** The label that bounds a snapshot's size, decimal bytes; containerd 2.4, core/snapshots. */
export const MAX_SIZE_LABEL = 'containerd.io/snapshot/max-size';

/** Whether an active snapshot is a layer in the making and no container's root file system. */
export function isExtraction(name: string, labels: Labels): boolean {
  return REF_LABEL in labels || EXTRACTION.test(name);
}

/**
 * containerd passes an empty key on, below the namespace and the sequence.
 * @throws InvalidArgument
 */
export function checkName(name: string, what: 'key' | 'name'): void {
  if (name !== '' && !/^[^/]+\/\d+\/$/.test(name)) return;
  throw new InvalidArgument(`a snapshot needs a ${what}, and this one is empty`, { subject: what });
}

/** containerd's namespace and key in a snapshot's name; the whole name as the key where it is of another form. */
export function splitName(name: string): { namespace: string; key: string } {
  const match = /^([^/]+)\/\d+\/([\s\S]+)$/.exec(name);
  return match === null
    ? { namespace: '', key: name }
    : { namespace: match[1] as string, key: match[2] as string };
}
