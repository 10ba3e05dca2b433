// Ten checkpoints, one a second, of a database that is at work under its own benchmark: what they write to the pool, beside ten
// images.
import { existsSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { pidOf, remove } from '../counter.ts';
import { report, run, type Options } from '../measure.ts';
import { importDebian } from './images.ts';

interface Database {
  readonly name: string;
  readonly packages: readonly [string, ...string[]];
  /** Whose processes it is. */
  readonly user: string;
  /** Starts it, fills it, makes /ready and goes on with its benchmark. */
  readonly script: string;
}

/** Values of 1,000 bytes under 100,000 keys, 150 MB; the benchmark sets and gets them at random, as fast as it can. */
const redis: Database = {
  name: 'redis',
  packages: ['redis-server', 'redis-tools'],
  user: 'root',
  script: `
    export PATH=/bin:/usr/bin
    redis-server --save '' --appendonly no >/dev/null 2>&1 &
    until redis-cli ping; do sleep 0.1; done
    redis-benchmark -q -t set -r 100000 -n 400000 -d 1000 -P 16
    : >/ready
    exec redis-benchmark -q -t set,get -r 100000 -d 1000 -l`,
};

/** pgbench at scale 10, 150 MB, and the transactions that it has by default, by four clients. */
const postgres: Database = {
  name: 'postgres',
  packages: ['postgresql-17', 'postgresql-client-17'],
  user: 'postgres', // it refuses to run as root
  script: `
    export PATH=/bin:/usr/bin
    mkdir -p /database
    echo 'postgres:x:70:70::/database:/bin/sh' >/etc/passwd
    chown 70:70 /database
    cat >/work <<'WORK'
      set -e
      export PATH=/usr/lib/postgresql/17/bin:/bin:/usr/bin PGHOST=/database; cd /database
      initdb -D data --locale=C --encoding=UTF8
      postgres -D data -c shared_buffers=256MB -c listen_addresses= -c unix_socket_directories=/database &
      until psql -c 'select 1' postgres; do sleep 0.1; done
      pgbench -i -s 10 postgres
      : >/ready
      exec pgbench -c 4 -T 1000000 postgres
WORK
    chmod 777 /
    exec su postgres -s /bin/sh /work`,
};

const SECOND = 1000;
const COUNT = 10;

export async function databases(options: Options, wanted: (name: string) => boolean): Promise<void> {
  for (const database of [redis, postgres]) {
    const name = `rewrite-${database.name}`;
    if (!wanted(name)) continue;
    if (database.user !== 'root' && !hasSysResource()) {
      console.error(
        `${name}: not measured: CRIU asks for the limits of a process of another user than root, and this host's root has no CAP_SYS_RESOURCE, which that takes: prlimit(2)`,
      );
      continue;
    }
    const { written, images } = await series(database);
    const peerName = `${COUNT} images`;
    report({ name, unit: 'MiB', ours: written, peer: images, runs: 1, peerName, target: 0.35 }, options);
  }
}

/** capabilities(7): the 24th of them, in the set that counts. */
function hasSysResource(): boolean {
  const set = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0';
  return (BigInt(`0x${set}`) & (1n << 24n)) !== 0n;
}

async function series({ name, packages, script }: Database): Promise<{ written: number; images: number }> {
  const image = importDebian(name, ...packages);
  const container = `e-${name}`;
  const kind = ['--runtime', 'io.containerd.stasis.v2', '--snapshotter', 'stasis'];
  const taken: string[] = [];
  const sum = { written: 0, images: 0 };
  try {
    run('ctr', 'run', '-d', '--null-io', ...kind, image, container, '/bin/sh', '-c', script);
    await untilReady(container);
    const begin = performance.now();
    for (let n = 1; n <= COUNT; n++) {
      await sleep(Math.max(0, begin + n * SECOND - performance.now()));
      const args = ['checkpoint', container, '--name', `c${n}`, '--require-memory', '--json'];
      const { checkpoint } = JSON.parse(run('stasis', ...args)) as {
        checkpoint: { memoryBytes: number; writtenBytes: number };
      };
      taken.push(`c${n}`);
      sum.written += checkpoint.writtenBytes / 2 ** 20;
      sum.images += checkpoint.memoryBytes / 2 ** 20;
    }
    return sum;
  } finally {
    remove(container);
    if (taken.length > 0) run('stasis', 'rm', container, ...taken);
  }
}

async function untilReady(container: string): Promise<void> {
  const pid = pidOf(container);
  for (const deadline = Date.now() + 120_000; ;) {
    if (existsSync(`/proc/${pid}/root/ready`)) return;
    if (pid === 0 || !existsSync(`/proc/${pid}`)) throw new Error(`${container} has ended`);
    if (Date.now() > deadline) throw new Error(`${container} does not come to its benchmark`);
    await sleep(200);
  }
}
