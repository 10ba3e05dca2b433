// A stasisd as it runs on a host, on a pool that is a listing in a file: zfs-fuse takes minutes to make a pool with
// thousands of snapshots and as long to list it. A script that prints the listing stands for `zfs`, so the figures are
// our part, and the listing's own time has to be added.
import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { GrpcServer } from '../../../src/api/grpc-server.ts';
import { Http2Connection } from '../../../src/http2/client-connection.ts';
import { Unimplemented } from '../../../src/errors.ts';
import { IntrospectionDefinition } from '../../../src/proto/gen/containerd/host.ts';

const READY_TIMEOUT_MS = 120_000;
const zfsScript = (folder: string): string => `#!/bin/sh
case "$*" in
  version) echo zfs-kmod-2.3.0 ;;
  'get '*' -r '*) exec cat '${folder}/listing' ;;
esac
`;
const zpoolScript = (pool: string): string => `#!/bin/sh
case "$*" in *health*) echo ONLINE ;; *) echo '${pool}' ;; esac
`;

export interface ListedPool {
  /** What `zfs get` prints of it. */
  readonly listing: string;
  readonly root: string;
  /** UUID of the containerd that the snapshots belong to: this process speaks for it. */
  readonly owner: string;
}

/** A running stasisd. To it, this process is the containerd that it serves. */
export class ListedDaemon {
  /** From the start of the process until it was ready. */
  readonly seconds: number;
  readonly #folder: string;
  readonly #process: ChildProcess;
  readonly #containerd: GrpcServer;

  private constructor(folder: string, child: ChildProcess, containerd: GrpcServer, seconds: number) {
    this.#folder = folder;
    this.#process = child;
    this.#containerd = containerd;
    this.seconds = seconds;
  }

  static async start({ listing, root, owner }: ListedPool): Promise<ListedDaemon> {
    const folder = mkdtempSync(join(tmpdir(), 'stasis-bench-'));
    writeFileSync(join(folder, 'listing'), listing);
    for (const [name, text] of [
      ['zfs', zfsScript(folder)],
      ['zpool', zpoolScript(root.split('/')[0] ?? root)],
    ] as const) {
      writeFileSync(join(folder, name), text);
      chmodSync(join(folder, name), 0o755);
    }
    writeFileSync(
      join(folder, 'config.toml'),
      `[daemon]\nrun_dir = "${folder}/run"\n[containerd]\naddress = "${folder}/containerd.sock"\n` +
        `[zfs]\nroot = "${root}"\nzfs_path = "${folder}/zfs"\nzpool_path = "${folder}/zpool"\n`,
    );
    const containerd = await standIn(join(folder, 'containerd.sock'), owner);
    const program = join(import.meta.dirname, '../../../dist/stasisd');
    const begin = process.hrtime.bigint();
    const child = spawn(program, {
      env: { ...process.env, STASIS_CONFIG: join(folder, 'config.toml') },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    await ready(child);
    return new ListedDaemon(folder, child, containerd, Number(process.hrtime.bigint() - begin) / 1e9);
  }

  /** Resident memory now, in millions of bytes, the pages of Node itself included. */
  megabytes(): number {
    const status = readFileSync(`/proc/${this.#process.pid ?? 0}/status`, 'utf8');
    return (Number(/^VmRSS:\s*(\d+) kB$/m.exec(status)?.[1]) * 1024) / 1e6;
  }

  /** A connection whose client costs next to nothing: the calls of a benchmark compete with it for the processor. */
  connect(): Http2Connection {
    return new Http2Connection(connect(join(this.#folder, 'run/stasisd.sock')));
  }

  async stop(): Promise<void> {
    const closed = new Promise((resolve) => this.#process.once('close', resolve));
    this.#process.kill('SIGTERM');
    await closed;
    await this.#containerd.close(0);
    rmSync(this.#folder, { recursive: true });
  }
}

/** What a stasisd asks of containerd: who it is. */
async function standIn(path: string, uuid: string): Promise<GrpcServer> {
  const server = new GrpcServer();
  server.addService(IntrospectionDefinition, {
    plugins: () => Promise.reject(new Unimplemented('this is no containerd')),
    server: async () => ({ uuid, pid: 0n, pidns: 0n }),
  });
  (await server.listen(path)).unref();
  return server;
}

function ready(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    let log = '';
    const fail = (): void => reject(new Error(`stasisd did not get ready: ${log}`));
    const timer = setTimeout(fail, READY_TIMEOUT_MS);
    child.stderr?.on('data', (bytes: Buffer) => {
      log += bytes.toString();
      if (!log.includes('msg=ready')) return;
      clearTimeout(timer);
      child.off('close', fail);
      resolve();
    });
    child.once('close', fail);
  });
}
