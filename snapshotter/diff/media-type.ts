import { Unimplemented } from '../../src/errors.ts';
import type { Compression } from './compression.ts';

/** What `Apply` answers: the type of an uncompressed layer. */
export const LAYER = 'application/vnd.oci.image.layer.v1.tar';

/** Layers that are archives, compressed or not; core/images/mediatypes.go. */
const layers = new Set(
  [
    [LAYER, 'application/vnd.oci.image.layer.nondistributable.v1.tar'].flatMap((base) => [
      base,
      `${base}+gzip`,
      `${base}+zstd`,
    ]),
    [
      'application/vnd.docker.image.rootfs.diff.tar',
      'application/vnd.docker.image.rootfs.foreign.diff.tar',
    ].flatMap((base) => [base, `${base}.gzip`, `${base}.zstd`]),
  ].flat(),
);

/** @throws Unimplemented for what is no archive as it stands, an encrypted layer say: containerd asks its next differ */
export function assertLayer(mediaType: string): void {
  if (layers.has(mediaType)) return;
  throw new Unimplemented(`layers of type ${mediaType} are not unpacked here`, { subject: mediaType });
}

/** How a diff of that type is compressed. Empty: the type is ours to choose. @throws Unimplemented */
export function compressionFor(mediaType: string): { mediaType: string; compression: Compression } {
  switch (mediaType) {
    case '':
      return { mediaType: `${LAYER}+gzip`, compression: 'gzip' };
    case LAYER:
      return { mediaType, compression: 'none' };
    case `${LAYER}+gzip`:
      return { mediaType, compression: 'gzip' };
    case `${LAYER}+zstd`:
      return { mediaType, compression: 'zstd' };
    default:
      throw new Unimplemented(`diffs of type ${mediaType} are not made here`, { subject: mediaType });
  }
}
