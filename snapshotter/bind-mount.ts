import { mappingMountOptions } from './idmap.ts';
import type { Snapshot } from './snapshot.ts';

/** A bind mount of a snapshot's files, as containerd's clients perform it. */
export interface BindMount {
  readonly type: 'bind';
  readonly source: string;
  readonly options: readonly string[];
}

/** A View is read-only wherever its mounts are asked for: that comes from the kind alone. */
export function bindMount({ kind, labels }: Pick<Snapshot, 'kind' | 'labels'>, source: string): BindMount {
  const access = kind === 'view' ? 'ro' : 'rw';
  return { type: 'bind', source, options: [access, 'rbind', ...mappingMountOptions(labels)] };
}
