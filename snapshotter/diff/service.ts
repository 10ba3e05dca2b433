import type { GrpcContext, GrpcHandlers } from '../../src/api/grpc-server.ts';
import type { Containerd, NamespaceClient } from '../../src/containerd/client.ts';
import { downloadContent } from '../../src/containerd/content.ts';
import { FailedPrecondition, InvalidArgument, Unimplemented } from '../../src/errors.ts';
import type { ApplyRequest, DiffDefinition } from '../../src/proto/gen/containerd/diff.ts';
import type { Descriptor } from '../../src/proto/gen/containerd/descriptor.ts';
import type { Mount } from '../../src/proto/gen/containerd/mount.ts';
import { splitName } from '../snapshot.ts';
import type { SnapshotStore } from '../store.ts';
import { assertLayer, LAYER } from './media-type.ts';
import type { DiffThreads } from './threads.ts';

const NAMESPACE_KEY = 'containerd-namespace';

export interface DiffOptions {
  readonly store: SnapshotStore;
  readonly containerd: Containerd;
  readonly threads: DiffThreads;
}

/**
 * containerd's Diff service (containerd/diff.proto) for our own snapshots. Mounts of other snapshotters are answered
 * with Unimplemented: containerd then asks the next differ of its list.
 */
export function diffService(options: DiffOptions): GrpcHandlers<DiffDefinition> {
  return {
    apply: async (request, context) => ({ applied: await apply(options, request, context) }),
    diff: async () => {
      throw new Unimplemented('diffs are not made here');
    },
  };
}

async function apply(
  { store, containerd, threads }: DiffOptions,
  request: ApplyRequest,
  context: GrpcContext,
): Promise<Descriptor> {
  const { diff, mounts, payloads, syncFs } = request;
  if (diff === undefined) throw new InvalidArgument('apply names no layer', { subject: 'diff' });
  assertLayer(diff.mediaType);
  if (Object.keys(payloads).length > 0) throw new Unimplemented('stream processors are not run here');
  const name = ownMount(store, mounts);
  const client = clientFor(containerd, context, name);
  return store.using(name, async ({ snapshot }, rootfs) => {
    if (snapshot.kind !== 'active') {
      throw new FailedPrecondition(`snapshot ${name} is ${snapshot.kind}: no layer can be unpacked into it`, {
        subject: name,
      });
    }
    const { digest, size } = await threads.run(
      { kind: 'unpack', folder: rootfs, sync: syncFs },
      { input: downloadContent(client, diff.digest), signal: context.signal },
    );
    return { mediaType: LAYER, digest, size: BigInt(size), annotations: {} };
  });
}

/** @throws Unimplemented unless it is the one bind mount that shows one of our snapshots as it is */
function ownMount(store: SnapshotStore, mounts: readonly Mount[]): string {
  const [mount, ...others] = mounts;
  const name = mount === undefined || others.length > 0 ? undefined : store.nameAt(mount);
  const plain = mount?.options.every((option) => ['rw', 'ro', 'rbind', 'bind'].includes(option)) ?? false;
  if (name !== undefined && plain) return name;
  throw new Unimplemented(
    `the mount ${mount?.type ?? ''} ${mount?.source ?? ''} is none of this snapshotter's`.replace(/ +/g, ' '),
    { subject: mount?.source },
  );
}

/**
 * containerd in the namespace of the call. 1.7 does not pass it on from its own diff service; a snapshot's name has it.
 */
function clientFor(containerd: Containerd, { metadata }: GrpcContext, snapshot: string): NamespaceClient {
  const namespace = metadata.get(NAMESPACE_KEY) ?? splitName(snapshot).namespace;
  if (namespace === '') throw new InvalidArgument('the call names no namespace', { subject: NAMESPACE_KEY });
  return containerd.namespace(namespace);
}
