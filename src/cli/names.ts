import { InvalidArgument } from '../errors.ts';

/** containerd's rule for ids of containers and names of namespaces (its package pkg/identifiers). */
const identifier = /^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$/;
const MAX_IDENTIFIER = 76;
/** What both ZFS and a file name take. */
const checkpoint = /^[A-Za-z0-9][A-Za-z0-9._:-]*$/;
const MAX_CHECKPOINT = 64;
/** zfs(8), "ZFS File System Hierarchy": components of letters, digits and `-_.: `, 255 bytes in all. */
const dataset = /^[A-Za-z0-9][A-Za-z0-9_.: -]*(?:\/[A-Za-z0-9_.:-][A-Za-z0-9_.: -]*)*$/;
const MAX_DATASET = 255;

const identifierRule =
  'use letters and digits, with single `.`, `_` or `-` between them, at most 76 characters';
const checkpointRule =
  'use letters, digits, `.`, `_`, `-` and `:`, a letter or digit first, at most 64 characters';

/** @throws InvalidArgument when containerd would refuse the name */
export function containerName(name: string): string {
  return check('container', name, identifier, MAX_IDENTIFIER, identifierRule);
}

/** @throws InvalidArgument when containerd would refuse the name */
export function namespaceName(name: string): string {
  return check('namespace', name, identifier, MAX_IDENTIFIER, identifierRule);
}

/** @throws InvalidArgument when the name could not be a ZFS snapshot's and a folder's */
export function checkpointName(name: string): string {
  return check('checkpoint', name, checkpoint, MAX_CHECKPOINT, checkpointRule);
}

/** @throws InvalidArgument when ZFS would refuse the name */
export function datasetName(name: string): string {
  return check('dataset', name, dataset, MAX_DATASET, 'name a dataset as `zfs list` prints it');
}

/**
 * A pattern for the names of clones: `{}` stands for a number and `{source}` for the source's name.
 * @throws InvalidArgument when the names it makes are not container names, or not distinct
 */
export function clonePattern(pattern: string, source: string, count: number): string {
  if (count > 1 && !pattern.includes('{}')) {
    throw new InvalidArgument(`the pattern ${quoted(pattern)} gives ${count} clones the same name`, {
      subject: pattern,
      remedy: 'put {} where the number belongs, as in --name web-{}',
    });
  }
  containerName(pattern.replaceAll('{source}', source).replaceAll('{}', String(count)));
  return pattern;
}

function check(kind: string, name: string, rule: RegExp, longest: number, remedy: string): string {
  if (name.length <= longest && rule.test(name)) return name;
  const problem = name === '' ? 'is empty' : name.length > longest ? 'is too long' : 'is not allowed';
  throw new InvalidArgument(`the ${kind} name ${quoted(name)} ${problem}`, { subject: name, remedy });
}

function quoted(name: string): string {
  return JSON.stringify(name.length > 100 ? `${name.slice(0, 100)}…` : name);
}
