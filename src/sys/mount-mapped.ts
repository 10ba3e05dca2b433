// Mounts as containerd's snapshotters describe them, with the mapping of ids that their options may ask for.
import { mkdtemp, mkdir, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { InvalidArgument } from '../errors.ts';
import { mountMapped, type IdMappings } from './idmap.ts';
import { mount, unmount, type Mount } from './mount.ts';

const UIDS = 'uidmap=';
const GIDS = 'gidmap=';

/** The options that ask whoever performs a mount for a mapping, as containerd's core/mount reads them. */
export function mappingOptions({ uids, gids }: IdMappings): string[] {
  return [`${UIDS}${uids}`, `${GIDS}${gids}`];
}

/**
 * Takes a mapping out of a mount's options.
 * @throws InvalidArgument where users are mapped and groups are not, or the other way round
 */
export function splitMappings(entry: Mount): { mappings: IdMappings | undefined; plain: Mount } {
  const valueOf = (name: string): string | undefined =>
    entry.options.findLast((option) => option.startsWith(name))?.slice(name.length);
  const [uids, gids] = [valueOf(UIDS), valueOf(GIDS)];
  const options = entry.options.filter((option) => !option.startsWith(UIDS) && !option.startsWith(GIDS));
  const plain = { ...entry, options };
  if (uids === undefined && gids === undefined) return { mappings: undefined, plain };
  if (uids === undefined || gids === undefined) {
    throw new InvalidArgument(`${uids === undefined ? UIDS : GIDS} is missing beside the other`, {
      subject: entry.source,
      remedy: 'a mount maps users and groups, or neither',
    });
  }
  return { mappings: { uids, gids }, plain };
}

/**
 * Performs a mount, mapped where its options say so. Of an overlay the lower folders are mapped and the upper one is
 * not: what is written belongs to the mapped users on disk as well, as with containerd's own.
 * @throws what `mount` and `mountMapped` throw; InvalidArgument for a mapping that is none
 */
export async function mountAsAsked(entry: Mount): Promise<void> {
  const { mappings, plain } = splitMappings(entry);
  if (mappings === undefined) return mount(plain);
  if (plain.type === 'overlay') return mountOverlay(plain, mappings);
  await mount(plain);
  const { target } = plain;
  let replaced = false;
  try {
    await mountMapped(mappings, [{ source: target, target }], {
      recursive: plain.options.includes('rbind'),
      replacing: async () => {
        await unmount(target, { detach: true });
        replaced = true;
      },
    });
  } catch (error) {
    if (!replaced) await unmount(target, { detach: true });
    throw error;
  }
}

const LOWER = 'lowerdir=';

/** The mapped lower folders are needed until the overlay is mounted: it keeps them by itself then. */
async function mountOverlay(entry: Mount, mappings: IdMappings): Promise<void> {
  const lower = entry.options.find((option) => option.startsWith(LOWER));
  if (lower === undefined) throw new InvalidArgument('an overlay without lower folders cannot be mapped');
  const folder = await mkdtemp(join(tmpdir(), 'stasis-mapped-'));
  // A colon that belongs to a name is escaped.
  const mapped = lower
    .slice(LOWER.length)
    .split(/(?<!\\):/)
    .map((escaped, at) => ({
      source: escaped.replaceAll(/\\(.)/g, '$1'),
      target: join(folder, String(at)),
    }));
  try {
    for (const { target } of mapped) await mkdir(target);
    await mountMapped(mappings, mapped, { readonly: true });
    const lowers = `${LOWER}${mapped.map(({ target }) => target).join(':')}`;
    await mount({ ...entry, options: entry.options.map((option) => (option === lower ? lowers : option)) });
  } finally {
    // Never a recursive removal here: below each of these are somebody's layers.
    for (const { target } of mapped) {
      await unmount(target, { detach: true }).catch(() => undefined); // not mounted yet
      await rmdir(target);
    }
    await rmdir(folder);
  }
}
