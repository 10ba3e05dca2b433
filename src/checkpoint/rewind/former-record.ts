// The record of a container whose disk is not ours, before and after a rewind: it is pointed at a new writable layer.
import type { NamespaceClient } from '../../containerd/client.ts';
import type { Container } from '../../proto/gen/containerd/containers.ts';
import { removeSnapshot } from '../gone-already.ts';

/** With a snapshotter and `/` and anything: label of what refers to a snapshot; containerd's docs/garbage-collection.md. */
const keepSnapshot = 'containerd.io/gc.ref.snapshot.';

/** The label that keeps the former layer from containerd's collector while it may still be gone back to. */
function labelOf({ snapshotter }: Container): string {
  return `${keepSnapshot}${snapshotter}/stasis-former`;
}

/** The labels of a container of which the former layer is kept. */
export function keepingFormerLayer(former: Container): Container['labels'] {
  return { ...former.labels, [labelOf(former)]: former.snapshotKey };
}

/** Whether a container still keeps a former layer. */
export function keepsFormerLayer(container: Container): boolean {
  return container.labels[labelOf(container)] !== undefined;
}

/** Points a container at another spec and, where its disk is not ours, at another layer. */
export async function pointRecord(
  client: NamespaceClient,
  container: Container,
  former: Container,
  at: { readonly layer: boolean },
): Promise<void> {
  // containerd's names of the fields that may change: core/metadata/containers.go
  const updateMask = ['spec', 'snapshotkey', ...(at.layer ? [`labels.${labelOf(former)}`] : [])];
  await client.containers.update({ container, updateMask });
}

/** Gives the former layer up, once nobody will go back to it. */
export async function forgetFormerLayer(client: NamespaceClient, former: Container): Promise<void> {
  const { snapshotter, snapshotKey: key } = former;
  await client.containers.update({ container: former, updateMask: [`labels.${labelOf(former)}`] });
  await removeSnapshot(client, snapshotter, key);
}
