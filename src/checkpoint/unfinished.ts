import { removeContainer } from './create.ts';
import { type Host, lockKey } from './host.ts';

/** Removes containers whose making was cut off: by the death of a stasisd, or of a containerd that did not come back in time. */
export async function removeUnfinished(host: Host): Promise<void> {
  for (const left of await host.pending.left()) {
    const { namespace, container: id, snapshotter } = left.note;
    await host.locks.run(lockKey(namespace, id), async () => {
      if (!left.still()) return;
      host.log.warn('removing a container whose making was cut off', { ...left.note });
      await removeContainer(host, namespace, id, snapshotter);
      host.fills.forget(namespace, id);
      await left.done();
    });
  }
}
