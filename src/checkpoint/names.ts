import { InvalidArgument, messageOf } from '../errors.ts';

/** containerd's rule for ids and namespaces: https://github.com/containerd/containerd/tree/main/pkg/identifiers */
const identifier = /^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$/;
const MAX_IDENTIFIER = 76;

/** Checkpoint names are ZFS snapshot names as they are; `:` is left to snapshots that Stasis makes for itself. */
const checkpointName = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

/** @throws InvalidArgument where containerd would refuse the id too */
export function validateContainerId(id: string): void {
  if (id.length <= MAX_IDENTIFIER && identifier.test(id)) return;
  throw new InvalidArgument(`${JSON.stringify(id)} is not a container name`, {
    subject: id,
    reason: 'bad-container-name',
    remedy: `use up to ${MAX_IDENTIFIER} letters and digits, with single . _ - between them`,
  });
}

/** @throws InvalidArgument for what containerd would not take as a namespace */
export function validateNamespace(namespace: string): void {
  if (namespace.length <= MAX_IDENTIFIER && identifier.test(namespace)) return;
  throw new InvalidArgument(`${JSON.stringify(namespace)} is not a namespace`, {
    subject: namespace,
    reason: 'bad-namespace',
    remedy: 'use letters and digits, with single . _ - between them, such as default or k8s.io',
  });
}

/** @throws InvalidArgument for a name that could not be a ZFS snapshot's */
export function validateCheckpointName(name: string): void {
  if (checkpointName.test(name)) return;
  throw new InvalidArgument(`${JSON.stringify(name)} is not a checkpoint name`, {
    subject: name,
    reason: 'bad-checkpoint-name',
    remedy: 'begin with a letter or digit; then up to 63 letters, digits, . _ -',
  });
}

/** The name a checkpoint gets when its user gives none: `checkpoint-<unix seconds>`, with `-2`, `-3`… when taken. */
export function defaultCheckpointName(now: Date, taken: (name: string) => boolean): string {
  const base = `checkpoint-${Math.floor(now.getTime() / 1000)}`;
  let name = base;
  for (let n = 2; taken(name); n++) name = `${base}-${n}`;
  return name;
}

/** Clones that one call makes at most. */
export const MAX_CLONES = 1000;

/**
 * Names of clones. `{}` in the pattern stands for a number, `{source}` for the source's name.
 * @throws InvalidArgument where the pattern cannot give `count` different names
 */
export function cloneNames(
  pattern: string,
  source: string,
  count: number,
  taken: (name: string) => boolean,
): string[] {
  const filled = (pattern === '' ? '{source}-{}' : pattern).replaceAll('{source}', source);
  if (!filled.includes('{}')) {
    if (count > 1) {
      throw new InvalidArgument(
        `the name pattern ${JSON.stringify(pattern)} gives only one name for ${count} clones`,
        {
          subject: pattern,
          reason: 'bad-name-pattern',
          remedy: 'put {} where the number goes, such as --name "web-{}"',
        },
      );
    }
    validateContainerId(filled);
    return [filled];
  }
  const names: string[] = [];
  for (let n = 1; names.length < count; n++) {
    const name = filled.replaceAll('{}', String(n));
    validateCloneName(name);
    if (!taken(name)) names.push(name);
  }
  return names;
}

/** @throws InvalidArgument that says how to have other names */
function validateCloneName(name: string): void {
  try {
    validateContainerId(name);
  } catch (error) {
    throw new InvalidArgument(`a clone cannot be named ${JSON.stringify(name)}: ${messageOf(error)}`, {
      subject: name,
      cause: error,
      remedy: 'give a pattern of your own, such as --name "copy-{}"',
    });
  }
}
