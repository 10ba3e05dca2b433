import { closeSync, openSync } from 'node:fs';
import { mkdtemp, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { mount, unmount } from '../../../src/sys/mount.ts';

/**
 * A file system whose server does not answer, as that of a host that is gone: FUSE's (fuse(4)), of which nobody reads the requests. What
 * looks into it waits, and can be killed. `go` ends the server: all that waits is told ENOTCONN.
 */
export class HungServer {
  readonly #folder: string;
  #fd: number;

  private constructor(folder: string, fd: number) {
    this.#folder = folder;
    this.#fd = fd;
  }

  static async make(): Promise<HungServer> {
    const folder = await mkdtemp(join(tmpdir(), 'stasis-server-'));
    const fd = openSync('/dev/fuse', 'r+');
    const options = [`fd=${fd}`, 'rootmode=40000', 'user_id=0', 'group_id=0', 'allow_other'];
    await mount({ type: 'fuse', source: 'hung', target: folder, options });
    return new HungServer(folder, fd);
  }

  /** A folder in it. To look whether it is there is to wait. */
  get inside(): string {
    return join(this.#folder, 'folder');
  }

  go(): void {
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
  }

  async remove(): Promise<void> {
    this.go();
    await unmount(this.#folder);
    await rmdir(this.#folder);
  }
}
