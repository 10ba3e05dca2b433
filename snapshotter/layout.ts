import { InvalidArgument } from '../src/errors.ts';
import { MAX_NAME } from '../src/zfs/names.ts';
import { isExtraction, REF_LABEL, splitName, type Labels } from './snapshot.ts';

/** Readable leaves stay short: the name has to hold the root, the namespace and a checkpoint's name too. */
const MAX_LEAF = 64;
/** Characters for `.2`, and the like. */
const SUFFIX = 8;
/** A chain id's 16 digits, or a time of removal with something of the name. */
const MIN_LEAF = 16;

/** Where datasets of each class live below the root; docs/zfs-layout.md. */
export class Layout {
  readonly root: string;
  readonly layers: string;
  readonly containers: string;
  readonly trash: string;

  constructor(root: string) {
    this.root = root;
    this.layers = `${root}/layers`;
    this.containers = `${root}/containers`;
    this.trash = `${root}/trash`;
  }

  /**
   * The dataset for a snapshot, free of `taken` names: a layer by its chain id, anything else by namespace and
   * key in a readable form, with `.2`, `.3`… where that is taken. Identity is in the properties, never here.
   */
  place(name: string, labels: Labels, taken: (dataset: string) => boolean): string {
    const { namespace, key } = splitName(name);
    const parent = isExtraction(name, labels)
      ? this.layers
      : `${this.containers}/${namespace === '' ? '_' : readable(namespace)}`;
    const leaf = isExtraction(name, labels) ? layerLeaf(key, labels) : readable(key);
    return free(below(parent, leaf), taken);
  }

  /** The next generation's dataset: beside the present one, under its name without a suffix of ours. */
  placeBeside(dataset: string, taken: (dataset: string) => boolean): string {
    return free(dataset.replace(/\.\d+$/, ''), taken);
  }

  /** Where a removed dataset waits; the name begins with the time of removal in seconds. */
  placeInTrash(dataset: string, seconds: number, taken: (dataset: string) => boolean): string {
    const leaf = dataset.slice(dataset.lastIndexOf('/') + 1);
    return free(below(this.trash, `${Math.floor(seconds)}-${leaf}`), taken);
  }

  /** When a dataset was put in the trash, in seconds; undefined where it is not in the trash. */
  trashedAt(dataset: string): number | undefined {
    const match = /^\/(\d+)-[^/]+$/.exec(
      dataset.startsWith(`${this.trash}/`) ? dataset.slice(this.trash.length) : '',
    );
    return match === null ? undefined : Number(match[1]);
  }

  classOf(dataset: string): 'layer' | 'container' | 'trash' | 'other' {
    const depth = (parent: string): number =>
      dataset.startsWith(`${parent}/`) ? dataset.slice(parent.length + 1).split('/').length : 0;
    if (depth(this.layers) === 1) return 'layer';
    if (depth(this.containers) === 2) return 'container';
    return depth(this.trash) === 1 ? 'trash' : 'other';
  }
}

function layerLeaf(key: string, labels: Labels): string {
  const digest = /(?:^|[ :])([0-9a-f]{64})$/.exec(labels[REF_LABEL] ?? key)?.[1];
  return digest === undefined ? readable(key) : digest.slice(0, 16);
}

function readable(text: string): string {
  const clean = text.replace(/[^A-Za-z0-9_.-]+/g, '-').replace(/^[-.]+|[-.]+$/g, '');
  return clean === '' ? '_' : clean.slice(0, MAX_LEAF);
}

/**
 * A name in a folder, cut to what ZFS takes with a suffix of ours.
 * @throws InvalidArgument where nothing that could be told apart would be left of it
 */
function below(parent: string, leaf: string): string {
  const room = MAX_NAME - SUFFIX - parent.length - 1;
  if (room < Math.min(leaf.length, MIN_LEAF)) {
    throw new InvalidArgument(`the name of dataset ${parent} is too long for datasets below it`, {
      subject: parent,
      reason: 'name-too-long',
      remedy: 'give zfs.root a shorter name',
    });
  }
  return `${parent}/${leaf.slice(0, room)}`;
}

function free(base: string, taken: (dataset: string) => boolean): string {
  if (!taken(base)) return base;
  for (let suffix = 2; ; suffix++) {
    const candidate = `${base}.${suffix}`;
    if (!taken(candidate)) return candidate;
  }
}
