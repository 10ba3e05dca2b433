import {
  cloneNames,
  validateCheckpointName,
  validateContainerId,
  validateNamespace,
} from '../checkpoint/names.ts';
import { InvalidArgument } from '../errors.ts';

// The rules are stasisd's own; asked here as well, they cost no connection and no half-done call.

/** @throws InvalidArgument when containerd would refuse the name */
export function containerName(name: string): string {
  validateContainerId(name);
  return name;
}

/** @throws InvalidArgument when containerd would refuse the name */
export function namespaceName(name: string): string {
  validateNamespace(name);
  return name;
}

/** @throws InvalidArgument when the name could not be a ZFS snapshot's */
export function checkpointName(name: string): string {
  validateCheckpointName(name);
  return name;
}

/**
 * A pattern for the names of clones: `{}` stands for a number and `{source}` for the source's name.
 * @throws InvalidArgument when the names it makes are not container names, or not distinct
 */
export function clonePattern(pattern: string, source: string, count: number): string {
  if (pattern === '') {
    throw new InvalidArgument('--name is empty', {
      subject: source,
      reason: 'bad-name-pattern',
      remedy: 'give a name, such as --name "web-{}", or leave --name out',
    });
  }
  cloneNames(pattern, source, count, () => false);
  return pattern;
}

/** zfs(8), "ZFS File System Hierarchy": components of letters, digits and `-_.: `, 255 bytes in all. */
const dataset = /^[A-Za-z0-9][A-Za-z0-9_.: -]*(?:\/[A-Za-z0-9_.:-][A-Za-z0-9_.: -]*)*$/;
const MAX_DATASET = 255;

/** @throws InvalidArgument when ZFS would refuse the name */
export function datasetName(name: string): string {
  if (name.length <= MAX_DATASET && dataset.test(name)) return name;
  throw new InvalidArgument(`${JSON.stringify(name)} is not a dataset`, {
    subject: name,
    reason: 'bad-dataset',
    remedy: 'name a dataset as `zfs list` prints it',
  });
}
