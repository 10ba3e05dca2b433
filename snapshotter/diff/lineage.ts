import { datasetOf } from '../../src/zfs/names.ts';
import type { Node } from '../index.ts';

/** Two snapshots, the second of which came of the first in one file system. */
export interface Step {
  readonly from: string;
  readonly to: string;
}

/**
 * How a snapshot came of another: through the file systems that were cloned one from another in between, the last step
 * first. Undefined where it did not.
 * @param find a file system by its name
 */
export function lineage(
  from: string,
  to: string,
  find: (dataset: string) => Node | undefined,
): readonly Step[] | undefined {
  const steps: Step[] = [];
  for (let at = to; at !== from;) {
    const node = find(datasetOf(at));
    // Whether it is the older of two in the same file system is not known here.
    const before = datasetOf(at) === datasetOf(from) ? undefined : node?.origin;
    if (before === undefined) return undefined;
    steps.push({ from: before, to: at });
    at = before;
  }
  return steps;
}
