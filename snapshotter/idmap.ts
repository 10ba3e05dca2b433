// Snapshots whose files are to appear under other ids than they have on disk: containerd's core/snapshots says by labels
// which, to snapshotters that announce `remap-ids`, and whoever performs the mount maps them.
import { FailedPrecondition, InvalidArgument } from '../src/errors.ts';
import { checkMappings, type IdMappings } from '../src/sys/idmap.ts';
import { mappingOptions } from '../src/sys/mount-mapped.ts';
import type { Labels } from './snapshot.ts';

const UID_LABEL = 'containerd.io/snapshot/uidmapping';
const GID_LABEL = 'containerd.io/snapshot/gidmapping';

function mappingsOf(labels: Labels): IdMappings | undefined {
  const [uids, gids] = [labels[UID_LABEL], labels[GID_LABEL]];
  return uids === undefined || gids === undefined ? undefined : { uids, gids };
}

/** The mapping's labels alone, for a snapshot that is to show the same files to the same users. */
export function mappingLabels(labels: Labels): Labels {
  const mappings = mappingsOf(labels);
  return mappings === undefined ? {} : { [UID_LABEL]: mappings.uids, [GID_LABEL]: mappings.gids };
}

/**
 * Whether labels ask for a mapping.
 * @throws InvalidArgument for half a mapping, or for one that is none
 */
export function asksForMapping(labels: Labels): boolean {
  const [uids, gids] = [labels[UID_LABEL] ?? '', labels[GID_LABEL] ?? ''];
  if (uids === '' && gids === '') return false;
  if (uids === '' || gids === '') {
    throw new InvalidArgument(`label ${uids === '' ? UID_LABEL : GID_LABEL} is missing beside the other`, {
      subject: uids === '' ? UID_LABEL : GID_LABEL,
    });
  }
  checkMappings({ uids, gids });
  return true;
}

/** What the options of a snapshot's mounts say of its mapping: nothing where it has none. */
export function mappingMountOptions(labels: Labels): string[] {
  const mappings = mappingsOf(labels);
  return mappings === undefined ? [] : mappingOptions(mappings);
}

/** Better no container than one whose files belong to nobody. */
export function cannotMap(name: string): FailedPrecondition {
  return new FailedPrecondition(
    `the files of ${name} cannot appear under other ids: ZFS or the kernel cannot map them`,
    {
      subject: name,
      reason: 'no-idmapped-mounts',
      remedy: 'leave the labels out, and containerd copies the files for the other users',
    },
  );
}
