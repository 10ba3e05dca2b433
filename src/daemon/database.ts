import { stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { snapshotterName } from '../checkpoint/host.ts';
import type { Containerd } from '../containerd/client.ts';
import type { Logger } from '../log.ts';
import type { DatabaseWatch } from '../../snapshotter/service.ts';
import type { SnapshotStore } from '../../snapshotter/store.ts';

/** Where containerd keeps its database, beside the content store: plugins/metadata of its sources. */
const DATABASE = 'io.containerd.metadata.v1.bolt/meta.db';

type Asked = Pick<Containerd, 'namespaces' | 'namespace' | 'plugins'>;

/**
 * Looks, once for each process of containerd and before it makes or removes anything, whether its database is the one that the pool's
 * snapshots were made with. One that was lost, or moved away because it was damaged, leaves the UUID in place: the collector of the new
 * one would remove every layer and container. It is another one where it knows no snapshot of ours and its file is younger than
 * they are. The former is back where it has a record of a snapshot that is out of use for that, or its file is older than the one that
 * was there meanwhile: then all is as it was. That a database knows snapshots of its own alone says nothing: the new one does, too.
 *
 * Must not be awaited by what containerd asks of us while it lists its snapshots (Stat), nor inside its transactions (Commit, Update).
 */
export class Database implements DatabaseWatch {
  readonly #containerd: Asked;
  readonly #store: SnapshotStore;
  readonly #log: Logger;
  readonly #born: (path: string) => Promise<number | undefined>;
  #looking: Promise<void> | undefined;
  /** Names that were out of use when the look began; a listing leaves out what we say does not exist, and asks for it. */
  #lost: ReadonlySet<string> = new Set();
  #knowsLost = false;

  /** @param born when a file was made, in seconds since 1970; for tests */
  constructor(containerd: Asked, store: SnapshotStore, log: Logger, born = birthOf) {
    this.#containerd = containerd;
    this.#store = store;
    this.#log = log;
    this.#born = born;
  }

  /** Another process of containerd is there. */
  forget(): void {
    this.#looking = undefined;
  }

  /** containerd asked for a snapshot that is not in use. */
  asked(_owner: string, name: string): void {
    this.#knowsLost ||= this.#lost.has(name);
  }

  /** @throws what containerd answers, where it cannot be asked: its collector then tries again later */
  async look(owner: string): Promise<void> {
    const looking = (this.#looking ??= this.#look(owner));
    try {
      await looking;
    } catch (error) {
      if (this.#looking === looking) this.#looking = undefined;
      throw error;
    }
  }

  async #look(owner: string): Promise<void> {
    this.#lost = this.#store.strangers.lostNames(owner);
    this.#knowsLost = false;
    if (this.#store.strangers.inUse(owner).length === 0 && this.#lost.size === 0) return;
    const known = await this.#known();
    const path = await this.#path();
    const born = path === undefined ? undefined : await this.#born(path);
    if (this.#lost.size > 0 && (this.#knowsLost || (await this.#isFormer(owner, born)))) {
      const found = await this.#store.strangers.find(owner, known);
      if (found.length > 0)
        this.#log.info("containerd's database is there again", { snapshots: found.length });
      return;
    }
    // The snapshots of one that is new and has some of its own say nothing of those that are out of use.
    if (known.size > 0 || born === undefined) return;
    const lost = await this.#store.strangers.lose(owner, born);
    if (lost.length === 0) return;
    this.#log.warn(
      "containerd's database is a new one, and knows none of the snapshots: they are kept from its collector",
      {
        database: path,
        snapshots: lost.length,
        remedy: 'put the former one back, or see stasis adopt --dry-run',
      },
    );
  }

  /** Namespace and key of the snapshots of ours that it has, and that are in use. Of others we are asked meanwhile: `asked`. */
  async #known(): Promise<Set<string>> {
    const known = new Set<string>();
    for (const name of await this.#containerd.namespaces()) {
      const { snapshots } = this.#containerd.namespace(name);
      for await (const { info } of snapshots.list({ snapshotter: snapshotterName, filters: [] }))
        for (const { name: key } of info) known.add(`${name}/${key}`);
    }
    return known;
  }

  /** A file that was moved back in its place is older than the one that was there meanwhile. */
  async #isFormer(owner: string, born: number | undefined): Promise<boolean> {
    return born !== undefined && this.#store.strangers.isFormer(owner, born);
  }

  async #path(): Promise<string | undefined> {
    const [content] = await this.#containerd.plugins(['type==io.containerd.content.v1,id==content']);
    const root = content?.exports['root'];
    return root === undefined ? undefined : join(dirname(root), DATABASE);
  }
}

/** Undefined where the file system does not say, or the file is not where it is expected. */
async function birthOf(path: string): Promise<number | undefined> {
  const found = await stat(path).catch(() => undefined);
  return found === undefined || found.birthtimeMs <= 0 ? undefined : found.birthtimeMs / 1000;
}
