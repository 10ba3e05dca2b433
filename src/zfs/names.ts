import { InvalidArgument } from '../errors.ts';

/**
 * Longest dataset or snapshot name that every kind of ZFS takes: 255 bytes, the snapshot part included
 * (ZFS_MAX_DATASET_NAME_LEN is 256 with the NUL; zfs-fuse's MAXNAMELEN is the same).
 */
export const MAX_NAME = 255;

/** Longest value of a user property on old pools (zfsprops(7) allows 8,192 on OpenZFS). */
export const MAX_VALUE = 1024;

const MAX_PROPERTY_NAME = 255;
const component = /^[A-Za-z0-9_.:-][A-Za-z0-9_.: -]*$/;
const userProperty = /^[a-z0-9+_.-]*:[a-z0-9+_.:-]*$/;
const nativeProperty = /^[a-z0-9_]+$/;

/**
 * Checks a file system's name before it reaches a command line.
 * @throws InvalidArgument naming the name and what is wrong with it
 */
export function checkDataset(name: string): string {
  const wrong = datasetFault(name);
  if (wrong !== undefined) throw invalid('dataset', name, wrong);
  return name;
}

/** Whether a pool can have a file system of this name, or be it: a pool's name begins with a letter (zpool-create(8)). */
export function isDataset(name: string): boolean {
  return datasetFault(name) === undefined && /^[A-Za-z]/.test(name);
}

/** Checks `dataset@snapshot`. @throws InvalidArgument */
export function checkSnapshot(name: string): string {
  const at = name.indexOf('@');
  if (at < 0) throw invalid('snapshot', name, 'has no @');
  const wrong = datasetFault(name.slice(0, at)) ?? componentFault(name.slice(at + 1)) ?? lengthFault(name);
  if (wrong !== undefined) throw invalid('snapshot', name, wrong);
  return name;
}

/** Checks a name that may be either. @throws InvalidArgument */
export function checkName(name: string): string {
  return name.includes('@') ? checkSnapshot(name) : checkDataset(name);
}

/**
 * Checks a property's name and value. Values of user properties must be printable ASCII, since
 * `zfs get -H` separates columns by tabs and rows by newlines without quoting.
 * @throws InvalidArgument
 */
export function checkProperty(name: string, value: string): void {
  const user = name.includes(':');
  if (!(user ? userProperty : nativeProperty).test(name) || name.length > MAX_PROPERTY_NAME) {
    throw invalid('property', name, 'is not a property name');
  }
  if (!user && name !== 'mountpoint' && value === '') throw invalid('property', name, 'has no value');
  if (!/^[\x20-\x7e]*$/.test(value) && name !== 'mountpoint') {
    throw invalid('property', name, 'has a value that is not printable ASCII');
  }
  if (user && value.length > MAX_VALUE) {
    throw invalid('property', name, `has a value of ${value.length} bytes, more than ${MAX_VALUE}`);
  }
}

/** The pool's name in a dataset's or snapshot's name. */
export function poolOf(name: string): string {
  return name.split(/[/@]/, 1)[0] ?? name;
}

/** The file system of a snapshot's name; the name itself where it is none. */
export function datasetOf(name: string): string {
  const at = name.indexOf('@');
  return at < 0 ? name : name.slice(0, at);
}

/** What follows the `@`; empty for a file system. */
export function snapshotOf(name: string): string {
  const at = name.indexOf('@');
  return at < 0 ? '' : name.slice(at + 1);
}

function datasetFault(name: string): string | undefined {
  if (name === '') return 'is empty';
  for (const part of name.split('/')) {
    const fault = componentFault(part);
    if (fault !== undefined) return fault;
  }
  return lengthFault(name);
}

function componentFault(part: string): string | undefined {
  if (part === '') return 'has an empty part';
  if (part === '.' || part === '..') return `has the part ${part}`;
  return component.test(part) ? undefined : `has the part ${JSON.stringify(part)}, which ZFS does not take`;
}

function lengthFault(name: string): string | undefined {
  return name.length > MAX_NAME ? `is longer than ${MAX_NAME} bytes` : undefined;
}

function invalid(what: string, name: string, wrong: string): InvalidArgument {
  return new InvalidArgument(`${what} name ${JSON.stringify(name)} ${wrong}`, { subject: name });
}
