import type { GrpcClient } from '../../../src/api/grpc-client.ts';
import type { SnapshotsDefinition } from '../../../src/proto/gen/containerd/snapshots.ts';
import { snapshotsService } from '../../../snapshotter/service.ts';
import { conformance } from './conformance.ts';
import { harness } from './harness.ts';

// The fake's mounts are its folders, so the service's handlers can be called as a client would call them.
conformance(
  async (t) => {
    const { store } = await harness(t);
    const service = snapshotsService(store);
    const context = { signal: new AbortController().signal, metadata: new Map<string, string>() };
    const snapshots = Object.fromEntries(
      Object.entries(service).map(([name, handler]) => [
        name,
        (request: never) => (handler as (request: never, with_: typeof context) => unknown)(request, context),
      ]),
    ) as unknown as GrpcClient<SnapshotsDefinition>;
    return {
      snapshots,
      mounted: async (mounts, work) => work(mounts[0]?.source ?? ''),
    };
  },
  { real: false },
);
