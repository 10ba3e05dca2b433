import type { Checkpoint, ContainerSummary, Disk } from '../proto/gen/stasis/stasis.ts';
import { MemoryKind } from '../proto/gen/stasis/stasis.ts';
import type { Node } from './tree.ts';
import { age, duration, milliseconds, size } from '../units.ts';

/** A line of a container's history: what it wrote to one disk, from its origin on. */
interface Branch {
  readonly container: ContainerSummary;
  /** Undefined when the container is not on our snapshotter and has no disk that we know. */
  readonly disk: Disk | undefined;
  readonly checkpoints: Checkpoint[];
}

interface Options {
  readonly now: number;
  readonly allNamespaces: boolean;
  /** The mark of where a container is. */
  readonly here: string;
}

/** Whether anything was rewound or cloned, so that a table could not say what came from what. */
export function hasBranches(containers: readonly ContainerSummary[]): boolean {
  return containers.some(
    ({ disks }) => disks.length > 1 || disks.some(({ originCheckpointId }) => originCheckpointId !== ''),
  );
}

/**
 * What came from what: containers that were started from an image at the top, below each its checkpoints in the
 * order of time, below a checkpoint the rewinds and clones that began at it.
 */
export function lineage(containers: readonly ContainerSummary[], options: Options): Node[] {
  const branches = containers.flatMap(branchesOf);
  const known = new Set<string>();
  for (const { checkpoints } of branches) for (const { id } of checkpoints) known.add(id);

  const byOrigin = new Map<string, Branch[]>();
  const oldests = new Map<ContainerSummary, Branch>();
  const orphans = new Map<Branch, Branch[]>();
  const roots: Branch[] = [];
  for (const branch of branches) {
    const origin = branch.disk?.originCheckpointId ?? '';
    const oldest = oldests.get(branch.container) ?? branch;
    oldests.set(branch.container, oldest);
    // Without its origin in the answer (another namespace, a removed checkpoint) a branch stands at the top: a container once,
    // what it was rewound to from a checkpoint that is gone below what it was first.
    if (known.has(origin)) byOrigin.set(origin, [...(byOrigin.get(origin) ?? []), branch]);
    else if (oldest !== branch) orphans.set(oldest, [...(orphans.get(oldest) ?? []), branch]);
    else roots.push(branch);
  }

  const drawn = new Set<Branch>();
  const draw = (starts: readonly Branch[]): Node[] => {
    // From an explicit stack, as deep as the history is; a ring in bad data is cut where it closes.
    const top: Node[] = [];
    const stack = starts.toReversed().map((branch) => ({ branch, into: top }));
    for (let next = stack.pop(); next !== undefined; next = stack.pop()) {
      const { branch, into } = next;
      if (drawn.has(branch)) continue;
      drawn.add(branch);
      const children: Node[] = [];
      for (const checkpoint of branch.checkpoints) {
        const below: Node[] = [];
        children.push({ label: checkpointLabel(checkpoint, options), children: below });
        const from = byOrigin.get(checkpoint.id) ?? [];
        stack.push(...from.toReversed().map((child) => ({ branch: child, into: below })));
      }
      const orphaned = orphans.get(branch) ?? [];
      stack.push(...orphaned.toReversed().map((child) => ({ branch: child, into: children })));
      if (isHere(branch))
        children.push({ label: `${options.here} ${branch.container.name} is here`, children: [] });
      into.push({ label: branchLabel(branch, known, options), children });
    }
    return top;
  };
  const nodes = draw(roots);
  return [...nodes, ...draw(branches.filter((branch) => !drawn.has(branch)))];
}

/** A container with all that it came from and all that came from it; clones of the same source are left out. */
export function relatives(
  containers: readonly ContainerSummary[],
  selected: readonly ContainerSummary[],
): ContainerSummary[] {
  const owners = new Map<string, ContainerSummary>();
  for (const one of containers) for (const { id } of one.checkpoints) owners.set(id, one);
  const sources = new Map<ContainerSummary, ContainerSummary[]>();
  const clones = new Map<ContainerSummary, ContainerSummary[]>();
  for (const one of containers) {
    for (const { originCheckpointId } of one.disks) {
      const owner = owners.get(originCheckpointId);
      if (owner === undefined || owner === one) continue;
      sources.set(one, [...(sources.get(one) ?? []), owner]);
      clones.set(owner, [...(clones.get(owner) ?? []), one]);
    }
  }
  const related = new Set<ContainerSummary>();
  for (const next of [sources, clones]) {
    const queue = [...selected];
    const seen = new Set<ContainerSummary>();
    for (let one = queue.pop(); one !== undefined; one = queue.pop()) {
      if (seen.has(one)) continue;
      seen.add(one);
      related.add(one);
      queue.push(...(next.get(one) ?? []));
    }
  }
  return containers.filter((one) => related.has(one));
}

/** One branch a disk, the oldest first; checkpoints go to the disk that their snapshot is of. */
function branchesOf(container: ContainerSummary): Branch[] {
  const disks = container.disks.toSorted((a, b) => order(a.createdAt, b.createdAt));
  const branches: Branch[] = disks.map((disk) => ({ container, disk, checkpoints: [] }));
  const fallback = branches.find(({ disk }) => disk?.current) ?? branches[0];
  const first = fallback ?? { container, disk: undefined, checkpoints: [] };
  if (fallback === undefined) branches.push(first);
  for (const checkpoint of container.checkpoints.toSorted((a, b) => order(a.createdAt, b.createdAt))) {
    const dataset = checkpoint.snapshot.split('@')[0];
    const branch = branches.find(({ disk }) => disk?.dataset === dataset) ?? first;
    branch.checkpoints.push(checkpoint);
  }
  return branches;
}

function isHere({ container, disk, checkpoints }: Branch): boolean {
  const only = container.disks.length <= 1 && checkpoints.length === 0;
  return container.exists && (disk === undefined || disk.current) && !only;
}

function branchLabel({ container, disk }: Branch, known: ReadonlySet<string>, options: Options): string {
  const name = options.allNamespaces ? `${container.namespace}/${container.name}` : container.name;
  const parts = [name];
  const oldest = container.disks.every((other) => order(disk?.createdAt, other.createdAt) <= 0);
  if (oldest) {
    parts.push(statusText(container));
    if (container.pid !== 0) parts.push(`pid ${container.pid}`);
    if (container.image !== '') parts.push(container.image);
  } else {
    parts.push(`${disk?.anew === true ? 'made anew' : 'rewound'} ${age(disk?.createdAt, options.now)}`);
  }
  const origin = disk?.originCheckpointId ?? '';
  if (origin !== '' && !known.has(origin)) parts.push(`from ${origin}`);
  if (disk?.foreign === true) parts.push('foreign: see `stasis adopt --dry-run`');
  return parts.join('  ');
}

/** `running`, and what is to be known of its memory. */
export function statusText({ exists, status, filling }: ContainerSummary): string {
  if (!exists) return 'removed';
  if (filling === undefined) return status || 'no task';
  return `${status || 'no task'}, memory ${filling.lost === '' ? 'coming in' : 'lost'}`;
}

function checkpointLabel(checkpoint: Checkpoint, { now }: Options): string {
  const parts = [checkpoint.name, age(checkpoint.createdAt, now), memoryText(checkpoint)];
  parts.push(storedText(checkpoint) || `unique ${size(checkpoint.uniqueBytes)}`);
  if (checkpoint.unchangedSince !== '') parts.push(`unchanged since ${checkpoint.unchangedSince}`);
  else if (checkpoint.timings !== undefined && checkpoint.timings.frozenNs > 0n)
    parts.push(`frozen ${duration(checkpoint.timings.frozenNs)}`);
  if (checkpoint.setId !== '') parts.push(`set ${checkpoint.setId}`);
  return parts.join('  ');
}

/** Whether it is whole yet, or will not be; empty for one that is. */
export function storedText({ storing, storeError }: Checkpoint): string {
  if (storing) return 'storing';
  return storeError === '' ? '' : `not stored: ${storeError}`;
}

/** `memory 8.1 MiB`, `disk only`, or `memory elsewhere` where a stock client keeps it. */
export function memoryText({ memory, memoryBytes }: Checkpoint): string {
  if (memory === MemoryKind.MEMORY_NONE) return 'disk only';
  return `memory ${memory === MemoryKind.MEMORY_EXTERNAL ? 'elsewhere' : size(memoryBytes)}`;
}

function order(a: Checkpoint['createdAt'], b: Checkpoint['createdAt']): number {
  return (a === undefined ? 0 : milliseconds(a)) - (b === undefined ? 0 : milliseconds(b));
}
