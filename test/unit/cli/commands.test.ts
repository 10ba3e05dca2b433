import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type AdoptRequest,
  AdoptResponse,
  type CheckpointRequest,
  type CloneRequest,
  DiskUsageResponse,
  InfoResponse,
  InspectResponse,
  type ListRequest,
  ListResponse,
  type RemoveRequest,
  type RestoreRequest,
  RestoreResult,
} from '../../../src/proto/gen/stasis/stasis.ts';
import { Code } from '../../../src/errors.ts';
import { version } from '../../../src/version.ts';
import { aCheckpoint, against, ago, type Handlers, now, type Outcome } from './harness.ts';

function json(outcome: Outcome): Record<string, unknown> {
  assert.equal(outcome.code, 0, outcome.stderr);
  return JSON.parse(outcome.stdout) as Record<string, unknown>;
}

/** A checkpoint call that answers, and keeps the request. */
function checkpointing(seen: CheckpointRequest[], warnings: string[] = []): Partial<Handlers> {
  return {
    async *checkpoint(request) {
      seen.push(request);
      yield { update: undefined, warnings };
      yield {
        update: { $case: 'checkpoint', value: aCheckpoint({ name: request.name || 'auto' }) },
        warnings: [],
      };
    },
  };
}

test('checkpoint sends what was asked for and prints what was taken', async () => {
  const seen: CheckpointRequest[] = [];
  const outcome = await against(checkpointing(seen), [
    'checkpoint',
    'web',
    '--name',
    'one',
    '--exit',
    '-n',
    'k8s.io',
  ]);
  assert.deepEqual(seen, [
    {
      ...{ namespace: 'k8s.io', container: 'web', name: 'one', exit: true },
      ...{ diskOnly: false, requireMemory: false, noWait: false, execSessions: 0, precopy: undefined },
    },
  ]);
  assert.deepEqual(outcome, {
    code: 0,
    stdout: 'web@one: memory 8.0 MiB, disk snapshot, frozen 23.4 ms, total 61.0 ms\n',
    stderr: '',
  });
});

test('what belongs to --precopy asks for it, and numbers are looked at before anything is sent', async () => {
  const seen: CheckpointRequest[] = [];
  const take = (...args: string[]) => against(checkpointing(seen), ['checkpoint', 'web', ...args]);
  await take('--precopy');
  await take('--precopy-rounds', '3');
  await take('--precopy-goal', '0.5');
  await take('--precopy', '--precopy-goal', '0');
  assert.deepEqual(
    seen.map(({ precopy }) => precopy),
    [
      { rounds: 0, goalBytes: undefined },
      { rounds: 3, goalBytes: undefined },
      { rounds: 0, goalBytes: 524_288n },
      { rounds: 0, goalBytes: 0n },
    ],
  );
  for (const wrong of [
    ['--precopy-rounds', '0'],
    ['--precopy-rounds', 'many'],
    ['--precopy-goal', '-1'],
    ['--precopy-goal', '1G'],
    ['--precopy', '--disk-only'],
  ])
    assert.equal((await take(...wrong)).code, 2, wrong.join(' '));
  assert.equal(seen.length, 4);
});

test('the namespace comes from CONTAINERD_NAMESPACE unless an option names it', async () => {
  const seen: CheckpointRequest[] = [];
  const env = { CONTAINERD_NAMESPACE: 'ci' };
  await against(checkpointing(seen), ['checkpoint', 'web'], { env });
  await against(checkpointing(seen), ['-n', 'other', 'checkpoint', 'web'], { env });
  await against(checkpointing(seen), ['checkpoint', 'web']);
  assert.deepEqual(
    seen.map(({ namespace }) => namespace),
    ['ci', 'other', 'default'],
  );
});

test("containerd's address goes with each call when it was named, and only then", async () => {
  const seen: (string | undefined)[] = [];
  const handlers: Partial<Handlers> = {
    async version(_, { metadata }) {
      seen.push(metadata.get('stasis-containerd-address'));
      return { version: '1', commit: 'c', node: 'n' };
    },
  };
  await against(handlers, ['version', '--daemon']);
  await against(handlers, ['version', '--daemon', '-a', 'unix:///run/a.sock']);
  await against(handlers, ['version', '--daemon'], { env: { CONTAINERD_ADDRESS: '/run/b.sock' } });
  assert.deepEqual(seen, [undefined, '/run/a.sock', '/run/b.sock']);
});

test('--json prints one document, --quiet the name alone; warnings are said in every case', async () => {
  const warnings = ['no memory:\n  Error (criu/tty.c:1): \u001b[31mbad'];
  const told = 'stasis: warning: no memory: Error (criu/tty.c:1): \\u{1b}[31mbad\n';
  const asJson = await against(checkpointing([], warnings), ['checkpoint', 'web', '--json']);
  const document = json(asJson);
  assert.deepEqual(document['warnings'], warnings);
  assert.deepEqual(document['checkpoint'], {
    id: 'id-auto',
    namespace: 'default',
    container: 'web',
    name: 'auto',
    createdAt: '2026-01-02T03:03:05.000000000Z',
    memory: 'image',
    memoryBytes: 8 << 20,
    memoryError: null,
    disk: 'snapshot',
    snapshot: 'tank/stasis/containers/default/web@auto',
    uniqueBytes: 1536,
    writtenBytes: 0,
    unchangedSince: null,
    origin: null,
    set: null,
    storing: false,
    storeError: null,
    image: 'busybox',
    runtime: null,
    timings: {
      frozenNs: 23_400_000,
      freezeNs: 0,
      dumpNs: 0,
      syncNs: 0,
      snapshotNs: 0,
      storeNs: 0,
      totalNs: 61_000_000,
    },
  });
  assert.equal(asJson.stderr, told);
  const quiet = await against(checkpointing([], warnings), ['checkpoint', 'web', '--quiet']);
  assert.deepEqual(quiet, { code: 0, stdout: 'auto\n', stderr: told });
});

test('restore sends what was asked for and tells memory from a fresh start', async () => {
  const seen: RestoreRequest[] = [];
  const handlers: Partial<Handlers> = {
    async *restore(request) {
      seen.push(request);
      const value = RestoreResult.fromPartial({
        container: request.as || request.container,
        checkpoint: request.checkpoint || 'latest',
        pid: 42,
        memory: request.checkpoint !== 'disk',
        totalNs: 82_000_000n,
      });
      yield { update: { $case: 'result', value }, warnings: [] };
    },
  };
  const first = await against(handlers, ['restore', 'web']);
  assert.equal(first.stdout, 'web from latest: memory and disk, 82.0 ms, pid 42\n');
  const second = await against(handlers, [
    'restore',
    'web',
    '--snapshot',
    'disk',
    '--as',
    'old',
    '--require-memory',
    '--eager',
  ]);
  assert.equal(second.stdout, 'old from disk: disk only, the process started anew, 82.0 ms, pid 42\n');
  assert.deepEqual(seen, [
    { namespace: 'default', container: 'web', checkpoint: '', as: '', requireMemory: false, paging: 0 },
    { namespace: 'default', container: 'web', checkpoint: 'disk', as: 'old', requireMemory: true, paging: 1 },
  ]);
  const restored = json(await against(handlers, ['restore', 'web', '--json']))['restored'];
  assert.partialDeepStrictEqual(restored, { container: 'web', pid: 42, memory: true, totalNs: 82_000_000 });
});

const cloning = (seen: CloneRequest[]): Partial<Handlers> => ({
  async *clone(request) {
    seen.push(request);
    yield { update: { $case: 'checkpoint', value: aCheckpoint() }, warnings: [] };
    for (let number = 1; number <= request.count; number++) {
      const value = RestoreResult.fromPartial({
        container: `web-${number}`,
        checkpoint: 'one',
        pid: number,
        memory: true,
      });
      yield { update: { $case: 'clone', value }, warnings: number === 1 ? ['shares random state'] : [] };
    }
  },
});

test('clone prints each clone, and the checkpoint only if it made it', async () => {
  const seen: CloneRequest[] = [];
  const argv = ['clone', 'web', '--count', '2', '--from', 'one', '--name', '{source}-{}', '--lazy'];
  const text = await against(cloning(seen), argv);
  assert.deepEqual(seen, [
    {
      namespace: 'default',
      container: 'web',
      from: 'one',
      count: 2,
      name: '{source}-{}',
      requireMemory: false,
      paging: 2,
    },
  ]);
  const subjects = (stdout: string) => stdout.split('\n').map((line) => line.split(/[:, ]/)[0]);
  assert.deepEqual(subjects(text.stdout), ['web-1', 'web-2', '']);
  assert.deepEqual(subjects((await against(cloning([]), ['clone', 'web'])).stdout), ['web@one', 'web-1', '']);
  assert.equal(text.stderr, 'stasis: warning: shares random state\n');
  assert.equal((await against(cloning([]), [...argv, '-q'])).stdout, 'web-1\nweb-2\n');
  const document = json(await against(cloning([]), [...argv, '--json']));
  assert.partialDeepStrictEqual(document, {
    checkpoint: { name: 'one' },
    clones: [{ container: 'web-1' }, { container: 'web-2' }],
    warnings: ['shares random state'],
  });
});

test('a count that is no number of clones is refused', async () => {
  for (const count of ['0', '-1', '1.5', 'many', '1e3', '10001', '']) {
    const { code, stderr } = await against(cloning([]), ['clone', 'web', `--count=${count}`]);
    assert.equal(code, 2, count);
    assert.match(stderr, /is not a number of clones/);
  }
});

const listing = (
  response: Parameters<typeof ListResponse.fromPartial>[0],
  seen: ListRequest[] = [],
): Partial<Handlers> => ({
  async list(request) {
    seen.push(request);
    return ListResponse.fromPartial(response);
  },
});

test('ls is a table where nothing was rewound or cloned', async () => {
  const seen: ListRequest[] = [];
  const handlers = listing(
    {
      containers: [
        {
          namespace: 'default',
          name: 'web',
          exists: true,
          status: 'running',
          image: 'busybox',
          disks: [{ dataset: 'tank/stasis/containers/default/web', current: true }],
          checkpoints: [aCheckpoint({ name: 'two', createdAt: ago(30), memory: 0 }), aCheckpoint()],
        },
        { namespace: 'default', name: 'db', exists: false },
      ],
    },
    seen,
  );
  const text = await against(handlers, ['ls'], { now });
  assert.deepEqual(seen, [{ namespace: 'default', container: '', allNamespaces: false }]);
  assert.equal(
    text.stdout,
    'CONTAINER  STATUS   CHECKPOINT  CREATED      MEMORY   UNIQUE   FROZEN  IMAGE\n' +
      'db         removed  -           -                 -        -        -  -\n' +
      'web        running  one         60 s ago    8.0 MiB  1.5 KiB  23.4 ms  busybox\n' +
      'web        running  two         30 s ago  disk only  1.5 KiB  23.4 ms  busybox\n',
  );
  assert.equal((await against(handlers, ['ls', '-q'])).stdout, 'db\nweb\n');
  assert.equal(
    (await against(handlers, ['ls', 'web', '-q', '--all-namespaces'])).stdout.split('\n')[0],
    'default/web@two',
  );
  const all = await against(handlers, ['ls', '--all-namespaces'], { now });
  assert.match(all.stdout, /^NAMESPACE {2}CONTAINER .*\ndefault {4}db /);
  assert.partialDeepStrictEqual(json(await against(handlers, ['ls', '--json'])), {
    containers: [
      { name: 'db', exists: false, status: null },
      { name: 'web', status: 'running', pid: null },
    ],
  });
  const none = await against(listing({}), ['ls']);
  assert.equal(none.stdout, 'CONTAINER  STATUS  CHECKPOINT  CREATED  MEMORY  UNIQUE  FROZEN  IMAGE\n');
});

test('inspect shows the facts, and the spec as JSON', async () => {
  const handlers: Partial<Handlers> = {
    inspect: async (request) =>
      InspectResponse.fromPartial({
        container: {
          namespace: 'default',
          name: 'web',
          exists: true,
          status: 'running',
          pid: 7,
          image: 'busybox',
        },
        ...(request.checkpoint !== '' && { checkpoint: aCheckpoint({ memoryError: 'no \u001b[31mway' }) }),
        specJson: '{"ociVersion":"1.0.2"}',
        labels: { 'a.b': 'c\nd' },
        datasetMemory: 'tank/m',
        files: [{ name: 'pages-1.img', size: 4096n }],
      }),
  };
  const text = await against(handlers, ['inspect', 'web', 'one']);
  assert.match(text.stdout, /^container: {5}web\n/);
  assert.match(text.stdout, /^status: {8}running, pid 7\n/m);
  assert.match(text.stdout, /^no memory: {5}no \\u\{1b\}\[31mway\n/m);
  assert.match(text.stdout, /^label: {9}a\.b=c\\u\{a\}d\n/m);
  assert.match(text.stdout, /^file: {10}pages-1\.img, 4\.0 KiB\n/m);
  assert.partialDeepStrictEqual(json(await against(handlers, ['inspect', 'web', '--json'])), {
    container: { name: 'web', pid: 7 },
    checkpoint: null,
    spec: { ociVersion: '1.0.2' },
    labels: { 'a.b': 'c\nd' },
    files: [{ name: 'pages-1.img', size: 4096 }],
  });
});

test('rm names each checkpoint once and says what keeps the data', async () => {
  const seen: RemoveRequest[] = [];
  const handlers: Partial<Handlers> = {
    async remove(request) {
      seen.push(request);
      return {
        removed: [
          { name: 'one', freedBytes: 2048n, waitsFor: [] },
          { name: 'two', freedBytes: 0n, waitsFor: ['web-1', 'web-2'] },
        ],
      };
    },
  };
  const text = await against(handlers, ['rm', 'web', 'one', 'two', 'one']);
  assert.deepEqual(seen, [{ namespace: 'default', container: 'web', checkpoints: ['one', 'two'] }]);
  assert.equal(
    text.stdout,
    'web@one: removed, 2.0 KiB freed\nweb@two: removed; its data stays for web-1, web-2\n',
  );
  assert.deepEqual(json(await against(handlers, ['rm', 'web', 'one', '--json'])), {
    removed: [
      { name: 'one', freedBytes: 2048, waitsFor: [] },
      { name: 'two', freedBytes: 0, waitsFor: ['web-1', 'web-2'] },
    ],
  });
});

test('info shows what is missing and how to get it', async () => {
  const handlers: Partial<Handlers> = {
    info: async () =>
      InfoResponse.fromPartial({
        version,
        rootDataset: 'tank/stasis',
        daemonPid: 9,
        shims: [
          {
            namespace: 'default',
            pid: 5,
            version: '0.1.0',
            containers: ['web'],
            guard: {
              version: '0.1.0',
              workerPid: 6,
              restarts: 7,
              lastEnd: 'SIGKILL',
              ends: ['one', 'two', 'three', 'SIGKILL'].map((why, n) => ({
                why,
                at: { seconds: BigInt(n), nanos: 0 },
              })),
            },
          },
        ],
        findings: [
          { name: 'zfs', ok: true, value: 'zfs-fuse 0.7.0' },
          { name: 'criu', ok: false, value: 'not found', remedy: 'apt-get install criu' },
        ],
      }),
  };
  const text = await against(handlers, ['info']);
  assert.equal(text.code, 0);
  assert.match(
    text.stdout,
    /^ok {7}zfs {3}zfs-fuse 0\.7\.0\nmissing {2}criu {2}not found\n\nTo do:\n {2}criu: apt-get install criu\n\nNAMESPACE .*\ndefault +5 +0\.1\.0 +1 +0\.1\.0 +6 +7 +SIGKILL\n\nEnds of .* shim 5 \(default\), the last 3 of 7:\n {2}1970-01-01T00:00:03\.000Z {2}SIGKILL\n.*02\.000Z {2}three\n.*01\.000Z {2}two\n$/m,
  );
  assert.partialDeepStrictEqual(json(await against(handlers, ['info', '--json'])), {
    ok: false,
    daemonPid: 9,
    shims: [
      {
        namespace: 'default',
        guard: {
          workerPid: 6,
          restarts: 7,
          lastEnd: 'SIGKILL',
          lastEndAt: null,
          ends: ['one', 'two', 'three', 'SIGKILL'].map((why, n) => ({
            at: `1970-01-01T00:00:0${n}.000Z`,
            why,
          })),
        },
      },
    ],
  });
  assert.equal((await against(handlers, ['info', '-q'])).stdout, 'criu\n');
});

test('adopt --dry-run says what would be adopted', async () => {
  const seen: AdoptRequest[] = [];
  const handlers: Partial<Handlers> = {
    async adopt(request) {
      seen.push(request);
      return AdoptResponse.fromPartial({
        adopted: [
          { dataset: 'tank/x', namespace: 'default', container: 'web', createdAt: ago(60), usedBytes: 1024n },
        ],
        skipped: ['tank/y: is not ours'],
      });
    },
  };
  const text = await against(handlers, ['adopt', '--dry-run', 'tank/x'], { now });
  assert.deepEqual(seen, [{ dryRun: true, datasets: ['tank/x'], drop: false }]);
  assert.match(
    text.stdout,
    /^tank\/x {3}default {4}web {8}60 s ago {2}1\.0 KiB\n1 would be adopted\nskipped: tank\/y: is not ours\n$/m,
  );
  assert.partialDeepStrictEqual(json(await against(handlers, ['adopt', '--json'])), {
    dryRun: false,
    adopted: [{ dataset: 'tank/x' }],
  });
});

test('adopt says what it could not take too, and ends as the first of these', async () => {
  const handlers: Partial<Handlers> = {
    async adopt() {
      return AdoptResponse.fromPartial({
        adopted: [{ dataset: 'tank/x', namespace: 'default', container: 'web' }],
        failed: [
          {
            dataset: 'tank/y',
            code: Code.ResourceExhausted,
            message: 'out of space',
            info: { remedy: 'make room' },
          },
        ],
      });
    },
  };
  const ran = await against(handlers, ['adopt']);
  assert.equal(ran.code, 6);
  assert.match(ran.stdout, /^tank\/x .*\n1 adopted\nfailed: tank\/y: out of space\n$/m);
  assert.match(ran.stderr, /1 of 2 datasets not adopted: tank\/y \(out of space\)\n {2}next: make room\n/);
  const document = JSON.parse((await against(handlers, ['adopt', '--json'])).stdout) as object;
  assert.partialDeepStrictEqual(document, {
    adopted: [{ dataset: 'tank/x' }],
    failed: [{ dataset: 'tank/y', error: { message: 'out of space' } }],
    error: { reason: 'not-all-adopted' },
  });
});

test('adopt --drop says what it destroyed, and with --dry-run what it would', async () => {
  const seen: AdoptRequest[] = [];
  const handlers: Partial<Handlers> = {
    async adopt(request) {
      seen.push(request);
      return AdoptResponse.fromPartial({ dropped: [{ dataset: 'tank/x', container: 'web' }] });
    },
  };
  assert.match((await against(handlers, ['adopt', '--drop', 'tank/x'])).stdout, /\n1 dropped\n$/);
  const preview = await against(handlers, ['adopt', '--drop', '--dry-run', 'tank/x']);
  assert.match(preview.stdout, /\n1 would be dropped\n$/);
  assert.deepEqual(
    seen.map(({ drop, dryRun }) => [drop, dryRun]),
    [
      [true, false],
      [true, true],
    ],
  );
  assert.partialDeepStrictEqual(json(await against(handlers, ['adopt', '--drop', 'tank/x', '--json'])), {
    adopted: [],
    dropped: [{ dataset: 'tank/x' }],
  });
});

test('df names few of many that keep something, without their folders', async () => {
  const waitsFor = ['web@one', 'web-1', 'web-2', 'web-3'].map((name) => `containers/default/${name}`);
  const handlers: Partial<Handlers> = {
    diskUsage: async () =>
      DiskUsageResponse.fromPartial({
        entries: [{ dataset: 'tank/stasis/trash/1', kind: 'trash', waitsFor }],
      }),
  };
  const { stdout } = await against(handlers, ['df'], { now });
  assert.match(stdout, / for web@one, web-1 and 2 more {2}tank\/stasis\/trash\/1\n/);
  assert.partialDeepStrictEqual(json(await against(handlers, ['df', '--json'])), { entries: [{ waitsFor }] });
});

test('df cuts a name that no terminal has room for, in its tables alone', async () => {
  const container = 'k'.repeat(300);
  const entry = { dataset: 'tank/x', kind: 'container', container };
  const handlers: Partial<Handlers> = {
    async diskUsage() {
      return DiskUsageResponse.fromPartial({ entries: [entry], checkpoints: [{ container, name: 'one' }] });
    },
  };
  const { stdout } = await against(handlers, ['df']);
  assert.match(stdout, /^container {2}k{47}… {2}/m);
  assert.match(stdout, /^k{47}…@one {2}/m);
  assert.partialDeepStrictEqual(json(await against(handlers, ['df', '--json'])), { entries: [entry] });
});

test('df sums up what each checkpoint takes, disk and memory', async () => {
  const checkpoints = [
    { container: 'web', name: 'good', uniqueBytes: 1024n, sharedBytes: 3072n, referencedBytes: 4096n },
  ];
  const handlers: Partial<Handlers> = {
    diskUsage: async () => DiskUsageResponse.fromPartial({ checkpoints, pool: 'tank' }),
  };
  const { stdout } = await against(handlers, ['df'], { now });
  assert.match(
    stdout,
    /\n\nCHECKPOINT {3}UNIQUE {3}SHARED {2}REFERENCED\nweb@good {4}1\.0 KiB {2}3\.0 KiB {5}4\.0 KiB\n\npool tank/,
  );
  assert.partialDeepStrictEqual(json(await against(handlers, ['df', '--json'])), {
    checkpoints: [
      { container: 'web', name: 'good', uniqueBytes: 1024, sharedBytes: 3072, referencedBytes: 4096 },
    ],
  });
});

test('df shows what keeps the trash', async () => {
  const handlers: Partial<Handlers> = {
    diskUsage: async () =>
      DiskUsageResponse.fromPartial({
        entries: [
          {
            dataset: 'tank/stasis/trash/1',
            kind: 'trash',
            uniqueBytes: 1024n,
            sharedBytes: 3072n,
            referencedBytes: 4096n,
            waitsFor: ['web-1'],
          },
          { dataset: 'tank/stasis/trash/2', kind: 'trash', expiresAt: ago(-90) },
        ],
        pool: 'tank',
        poolHealth: 'ONLINE',
        poolFreeBytes: 1n << 30n,
        poolSizeBytes: 2n << 30n,
      }),
  };
  const text = await against(handlers, ['df'], { now });
  assert.match(
    text.stdout,
    /^trash {2}- {10}1\.0 KiB {2}3\.0 KiB {5}4\.0 KiB {2}for web-1 {7}tank\/stasis\/trash\/1\n/m,
  );
  assert.match(
    text.stdout,
    /for 1 min 30 s {2}tank\/stasis\/trash\/2\npool tank: 1\.0 GiB free of 2\.0 GiB, ONLINE\n$/,
  );
  assert.partialDeepStrictEqual(json(await against(handlers, ['df', '--json'])), {
    entries: [
      { kind: 'trash', waitsFor: ['web-1'], expiresAt: null },
      { expiresAt: '2026-01-02T03:05:35.000000000Z' },
    ],
    pool: { name: 'tank', health: 'ONLINE', sizeBytes: 2 ** 31, freeBytes: 2 ** 30 },
  });
});
