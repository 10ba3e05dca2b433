import { mkdir, rmdir } from 'node:fs/promises';
import { after, before, suite } from 'node:test';
import { GrpcChannel } from '../../../../src/api/grpc-client.ts';
import { GrpcServer } from '../../../../src/api/grpc-server.ts';
import { SnapshotsDefinition } from '../../../../src/proto/gen/containerd/snapshots.ts';
import { mount, unmount } from '../../../../src/sys/mount.ts';
import { snapshotsService } from '../../../../snapshotter/service.ts';
import type { SnapshotStore } from '../../../../snapshotter/store.ts';
import { conformance } from '../../../unit/snapshotter/conformance.ts';
import { realPool, skip, type RealPool } from './real-pool.ts';

suite('on real ZFS, over a socket', { skip }, () => {
  let pool: RealPool;
  let store: SnapshotStore;
  const closing: (() => Promise<void> | void)[] = [];
  let serial = 0;

  before(async () => {
    pool = await realPool();
    store = await pool.open();
  });
  after(async () => {
    for (const close of closing.reverse()) await close();
    await pool.close();
  });

  // Each case is a containerd of its own: its snapshots are all that it sees.
  conformance(
    async () => {
      const owner = `case-${serial++}`;
      const socket = `${pool.folder}/${owner}.sock`;
      const server = new GrpcServer();
      server.addService(
        SnapshotsDefinition,
        snapshotsService(store, () => owner),
      );
      const sockets = await server.listen(socket);
      const channel = new GrpcChannel(socket);
      closing.push(
        () => void sockets.close(),
        () => server.close(0),
        () => channel.close(),
      );
      return {
        guardsViews: pool.zfs.kind === 'openzfs',
        snapshots: channel.service(SnapshotsDefinition),
        mounted: async (mounts, work) => {
          const target = `${pool.folder}/target-${serial++}`;
          await mkdir(target);
          for (const { type, source, options } of mounts) await mount({ type, source, target, options });
          try {
            return await work(target);
          } finally {
            await unmount(target);
            await rmdir(target);
          }
        },
      };
    },
    { real: true },
  );
});
