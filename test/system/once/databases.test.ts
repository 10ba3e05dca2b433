// Real databases under load: checkpointed, rewound and cloned, and then asked by their own programs whether they are whole.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { pidOf, removeAll, startContainer, uniqueName } from '../support/container.ts';
import { lacksSysResource } from '../support/capabilities.ts';
import { importDebian } from '../support/debian.ts';
import { ctr, importImage, readIfThere, stasis, until } from '../support/stack.ts';

/** Runs a line of shell in the container, which has to succeed. */
async function within(name: string, line: string): Promise<string> {
  const id = uniqueName('x');
  return ctr('tasks', 'exec', '--exec-id', id, name, '/bin/sh', '-c', `export PATH=${path}; ${line}`);
}

const path = '/usr/lib/postgresql/17/bin:/bin:/usr/bin';

async function started(name: string, image: string, script: string, flags: string[] = []): Promise<void> {
  await startContainer(name, ['/bin/sh', '-c', `export PATH=${path}\n${script}`], flags, image);
  const pid = await pidOf(name);
  await until(
    `${name} to come to its load`,
    () => readIfThere(`/proc/${pid}/root/ready`) !== undefined || undefined,
  );
}

interface Database {
  /** What its clients have been told so far, from which it never goes back but by a rewind. */
  readonly work: (name: string) => Promise<number>;
  /** Whether everything in it belongs together, by what its transactions keep equal and by its own checker. */
  readonly check: (name: string) => Promise<void>;
}

/** Checkpointed under load; then what came of it, in place and as a clone, is whole and goes on. */
async function stands(name: string, { work, check }: Database): Promise<void> {
  const clone = `${name}-c`;
  const goesOn = async (container: string): Promise<void> => {
    const was = await work(container);
    await until(`${container} to go on`, async () => (await work(container)) > was || undefined);
  };
  try {
    const before = await work(name);
    await stasis('checkpoint', name, '--name', 'a', '--require-memory');
    const then = await work(name);
    await goesOn(name);
    await stasis('checkpoint', name, '--name', 'b', '--require-memory');
    await stasis('restore', name, '--snapshot', 'a', '--require-memory');
    const back = await work(name);
    assert.ok(back >= before, `it knows all that was acknowledged: ${before}, then ${back}`);
    await check(name);
    await goesOn(name);
    await stasis('clone', name, '--from', 'b', '--name', clone);
    assert.ok((await work(clone)) >= then, 'and so does the clone');
    await check(clone);
    await goesOn(clone);
    await check(name);
  } finally {
    await removeAll(clone);
  }
}

suite('databases under load', () => {
  const [redis, postgres] = [uniqueName('redis'), uniqueName('postgres')];
  before(importImage);
  after(() => removeAll(redis, postgres));

  test('Redis: nothing acknowledged is lost, and redis-check-rdb and redis-check-aof find nothing', async () => {
    const image = await importDebian('redis', ['redis-server', 'redis-tools']);
    const cli = 'redis-cli -s /redis';
    await started(
      redis,
      image,
      `mkdir -p /data
      redis-server --port 0 --unixsocket /redis --dir /data --save '' --appendonly yes --appendfsync always >/log 2>&1 &
      until ${cli} ping; do sleep 0.1; done
      : >/ready
      # Clients that stay, as CRIU dumps no connection that was made and not accepted yet.
      redis-benchmark -s /redis -q -c 4 -t set -n 1000000000 -r 1000 -d 200 >/dev/null &
      while :; do printf 'MULTI\\nINCR one\\nINCR two\\nEXEC\\n'; sleep 0.01; done | ${cli} |
        while read -r line; do case $line in [0-9]*) echo "$line" >>/told ;; esac; done`,
    );
    await stands(redis, {
      // The number that the client wrote down, after the server had said it.
      work: async (name) => {
        const pid = await pidOf(name);
        const told = await until(
          'a number',
          () => /(\d+)\n$/.exec(readIfThere(`/proc/${pid}/root/told`) ?? '')?.[1],
        );
        const [one = 0] = (await within(name, `${cli} get one`)).split('\n').map(Number);
        assert.ok(one >= Number(told), `the server knows ${one}, and a client was told ${told}`);
        return one;
      },
      check: async (name) => {
        const [one, two] = (await within(name, `${cli} mget one two`)).trim().split('\n');
        assert.equal(one, two);
        assert.match(await within(name, `${cli} save && redis-check-rdb /data/dump.rdb`), /RDB looks OK!/);
        const aof = 'redis-check-aof /data/appendonlydir/appendonly.aof.manifest';
        // Of the file that is written to meanwhile the last command may be there in part.
        const said = await within(
          name,
          `${cli} config set appendonly no >/dev/null && ${aof}; ${cli} config set appendonly yes`,
        );
        assert.match(said, /All AOF files and manifest are valid/);
      },
    });
  });

  test('PostgreSQL: what pgbench keeps equal is equal, and pg_amcheck finds nothing', async () => {
    const image = await importDebian('postgres', ['postgresql-17', 'postgresql-client-17']);
    const psql = 'psql -h /database -U postgres -At';
    await started(
      postgres,
      image,
      `mkdir -p /database
      echo 'postgres:x:70:70::/database:/bin/sh' >/etc/passwd
      chmod 777 /database
      cat >/work <<'WORK'
        set -e
        export PATH=${path} PGHOST=/database; cd /database
        initdb -D data --locale=C --encoding=UTF8
        postgres -D data -c listen_addresses= -c unix_socket_directories=/database &
        until psql -c 'select 1' postgres; do sleep 0.1; done
        pgbench -i -s 1 postgres
        psql -c 'create extension amcheck' postgres
        : >/ready
        exec pgbench -c 3 -T 1000000 postgres
WORK
      chmod 777 /
      exec su postgres -s /bin/sh /work`,
      // It refuses to run as root. Where the host's root has no CAP_SYS_RESOURCE, CRIU can dump another user in a user namespace
      // alone, and there zfs-fuse lets it open no file of that user again.
      lacksSysResource()
        ? [
            '--uidmap',
            '0:100000:65536',
            '--gidmap',
            '0:100000:65536',
            '--mount',
            `type=tmpfs,src=tmpfs,dst=/database,options=mode=777:size=512m`,
          ]
        : [],
    );
    await stands(postgres, {
      work: async (name) => Number(await within(name, `${psql} -c 'select count(*) from pgbench_history'`)),
      check: async (name) => {
        const sums = `select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers),
          (select sum(bbalance) from pgbench_branches), (select sum(delta) from pgbench_history)`;
        const [accounts, ...others] = (await within(name, `${psql} -c "${sums}"`)).trim().split('|');
        assert.equal(others.length, 3);
        for (const other of others) assert.equal(other, accounts);
        await within(name, 'pg_amcheck -h /database -U postgres --heapallindexed postgres');
      },
    });
  });
});
