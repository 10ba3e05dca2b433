import { type BindMount, bindMount } from './bind-mount.ts';
import { type Labels, splitName } from './snapshot.ts';

/** Who waits to hear where a container's disk will be, by containerd's namespace and key. */
export class AwaitedPlaces {
  readonly #waiting = new Map<string, (mount: BindMount) => void>();

  /**
   * Tells the mount of a container's disk as soon as it is decided, before the disk is made: so that what needs no more
   * than its name can go on meanwhile. `close` ends the waiting; the mount is then undefined, if it has not been told.
   */
  when(namespace: string, key: string): { mount: Promise<BindMount | undefined>; close(): void } {
    const name = nameOf(namespace, key);
    const { promise, resolve } = Promise.withResolvers<BindMount | undefined>();
    this.#waiting.set(name, resolve);
    return {
      mount: promise,
      close: () => {
        if (this.#waiting.get(name) === resolve) this.#waiting.delete(name);
        resolve(undefined);
      },
    };
  }

  /** Says where the files of a snapshot will be. */
  decided({ name, labels }: { name: string; labels: Labels }, rootfs: string): void {
    if (this.#waiting.size === 0) return;
    const { namespace, key } = splitName(name);
    this.#waiting.get(nameOf(namespace, key))?.(bindMount({ kind: 'active', labels }, rootfs));
  }
}

function nameOf(namespace: string, key: string): string {
  return `${namespace}\0${key}`;
}
