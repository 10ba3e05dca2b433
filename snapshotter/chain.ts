// Which image layer a snapshot holds, told by content: the chain id of the OCI image specification (image-spec, config.md,
// "Layer ChainID"), which stands for a layer's files and those of all layers below it.
import { createHash } from 'node:crypto';
import {
  DIFF_LABEL,
  PARENT_CHAIN_LABEL,
  REF_LABEL,
  splitName,
  type Labels,
  type Snapshot,
} from './snapshot.ts';

const DIGEST = /^sha256:[0-9a-f]{64}$/;

/**
 * The chain id that labels spell out: containerd gives the layer's own digest and the chain id below it from 2.3 on.
 * Undefined where they do not, or are no digests.
 */
export function spelledChain(labels: Labels): string | undefined {
  const [diff, below] = [labels[DIFF_LABEL], labels[PARENT_CHAIN_LABEL]];
  if (diff === undefined || !DIGEST.test(diff)) return undefined;
  if (below === undefined || below === '') return diff; // the lowest layer
  if (!DIGEST.test(below)) return undefined;
  return `sha256:${createHash('sha256').update(`${below} ${diff}`).digest('hex')}`;
}

/**
 * Whether a committed snapshot is the layer of a chain id: it says so by the label of its unpacking, by the digests that came
 * with it, or by the name under which every client of containerd commits a layer.
 */
export function isLayerOf(snapshot: Snapshot, chain: string): boolean {
  if (snapshot.kind !== 'committed') return false;
  const { labels } = snapshot;
  return (
    labels[REF_LABEL] === chain ||
    (DIGEST.test(chain) && (splitName(snapshot.name).key === chain || spelledChain(labels) === chain))
  );
}
