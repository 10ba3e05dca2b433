import { randomUUID } from 'node:crypto';
import type { GrpcContext, GrpcHandlers } from '../../src/api/grpc-server.ts';
import type { Containerd, NamespaceClient } from '../../src/containerd/client.ts';
import { downloadContent, writeContent } from '../../src/containerd/content.ts';
import { FailedPrecondition, Internal, InvalidArgument, messageOf, Unimplemented } from '../../src/errors.ts';
import type { ApplyRequest, DiffDefinition, DiffRequest } from '../../src/proto/gen/containerd/diff.ts';
import type { Descriptor } from '../../src/proto/gen/containerd/descriptor.ts';
import type { Mount } from '../../src/proto/gen/containerd/mount.ts';
import { splitName } from '../snapshot.ts';
import type { SnapshotStore } from '../store.ts';
import { Handover } from './handover.ts';
import { assertLayer, compressionFor, LAYER } from './media-type.ts';
import type { JobResult } from './job.ts';
import type { DiffThreads } from './threads.ts';

const LEASE_KEY = 'containerd-lease';
/** For how long a blob is kept that nobody holds a lease for: until its client has made an image of it. */
const LEASE_MS = 600_000;
/** The label that names a compressed layer's content; containerd's clients look for it. */
const UNCOMPRESSED = 'containerd.io/uncompressed';
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
    diff: async (request, context) => ({ diff: await diff(options, request, context) }),
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

async function diff(
  { store, containerd, threads }: DiffOptions,
  request: DiffRequest,
  context: GrpcContext,
): Promise<Descriptor> {
  const { mediaType, compression } = compressionFor(request.mediaType);
  const right = ownMount(store, request.right);
  const left = request.left.length === 0 ? undefined : ownMount(store, request.left);
  const { signal } = context;
  const client = clientFor(containerd, context, right);
  const epoch = request.sourceDateEpoch;
  const latest = epoch === undefined ? undefined : Number(epoch.seconds);
  const lease = await leaseFor(client, context);
  const pieces = new Handover<Uint8Array>();
  const packed = Promise.withResolvers<JobResult>();
  // It goes on for a while after the layer is whole: what it was read from is taken away.
  const packing = store.comparing(
    { left, right },
    async (trees) => {
      const job = { kind: 'pack', ...trees, compression, latest } as const;
      packed.resolve(await threads.run(job, { output: (bytes) => pieces.put(bytes), signal }));
      pieces.end();
    },
    { signal },
  );
  packed.promise.catch(() => undefined); // its error is the pieces' already
  packing.catch((error: unknown) => {
    packed.reject(error);
    pieces.end(error instanceof Error ? error : new Internal(messageOf(error)));
  });
  try {
    const { digest, size } = await writeContent(
      client,
      request.ref === '' ? undefined : request.ref,
      pieces,
      async () => {
        const { digest: plain, packedDigest, packedSize } = await packed.promise;
        const labels = { ...request.labels, [UNCOMPRESSED]: plain };
        return { digest: packedDigest, size: BigInt(packedSize), labels };
      },
      { signal, metadata: { [LEASE_KEY]: lease } },
    );
    await packing;
    return { mediaType, digest, size, annotations: {} };
  } finally {
    pieces.close();
    await packing.catch(() => undefined); // its error is the call's already
  }
}

/**
 * The caller's lease, which keeps the new blob from containerd's collector until something names it. containerd does
 * not pass it on from its own diff service: then one of ours does so for a while.
 */
async function leaseFor(client: NamespaceClient, { metadata }: GrpcContext): Promise<string> {
  const given = metadata.get(LEASE_KEY);
  if (given !== undefined) return given;
  const id = `stasis-diff-${randomUUID()}`;
  const expires = new Date(Date.now() + LEASE_MS).toISOString();
  await client.leases.create({ id, labels: { 'containerd.io/gc.expire': expires } });
  return id;
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
