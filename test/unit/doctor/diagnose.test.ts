import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deletedMappings } from '../../../src/doctor/checks/deleted-file.ts';
import { parseConnections } from '../../../src/doctor/checks/tcp-peer.ts';
import { connectedSockets, parsePeers } from '../../../src/doctor/checks/unix-peer.ts';
import { type ContainerFacts, viewContainer } from '../../../src/doctor/container-view.ts';
import { diagnose } from '../../../src/doctor/diagnose.ts';
import type { Obstacle } from '../../../src/doctor/obstacle.ts';
import type { Exec } from '../../../src/sys/command.ts';
import { facts, fakeProc, type FakeProcess } from './fake-proc.ts';

const saying =
  (stdout: string): Exec =>
  async () => ({
    exitCode: 0,
    signal: undefined,
    stdout,
    stderr: '',
    timedOut: false,
    cancelled: false,
    durationMs: 0,
    spawnError: undefined,
  });

async function of(
  processes: readonly FakeProcess[],
  more: Partial<ContainerFacts> = {},
  ss = '',
): Promise<Obstacle[]> {
  const pids = more.pids ?? processes.map(({ pid }) => pid);
  return diagnose(facts(pids, more), { proc: fakeProc(processes), exec: saying(ss) });
}

const names = (obstacles: readonly Obstacle[]): string[] => obstacles.map(({ name }) => name);
const link = (links: number) => ({ kind: 'file', major: 0, minor: 0, size: 1, links }) as const;
const node = (major: number, minor: number) =>
  ({ kind: 'character-device', major, minor, size: 0, links: 1 }) as const;

test('what CRIU can dump is no obstacle', async () => {
  const usual = {
    0: '/dev/null',
    1: 'pipe:[1]',
    2: 'pipe:[1]',
    3: '/var/log/web.log',
    4: 'anon_inode:[eventpoll]',
    5: 'anon_inode:inotify',
    6: 'socket:[7]',
    7: '/memfd:x (deleted)',
    8: '/run/gone (deleted)',
    9: '/dev/pts/0',
  };
  const found = await of([
    {
      pid: 100,
      descriptors: usual,
      files: { 0: node(1, 3), 8: link(0), 9: node(136, 0) },
      protocols: { 6: 'TCP' },
    },
    {
      pid: 101,
      parent: 100,
      descriptors: { 3: 'pipe:[9]', 4: 'pipe:[9]' },
      details: { 3: 'flags:\t00', 4: 'flags:\t01' },
    },
  ]);
  assert.deepEqual(found, []);
});

test('each obstacle names its process by both of its numbers, and its descriptor', async () => {
  const [found] = await of([
    { pid: 100 },
    { pid: 120, parent: 100, inner: [7], descriptors: { 14: 'anon_inode:[io_uring]' } },
  ]);
  assert.equal(found?.name, 'io-uring');
  assert.equal(found.subject, 'process 120 (p120, 7 inside), descriptor 14');
  assert.match(found.remedy, /stasis\.io\/checkpointable/);
});

test('errors come before warnings', async () => {
  const spec = { mounts: [{ destination: '/data', source: '/srv/data', type: 'bind' }] };
  const found = await of([{ pid: 100, descriptors: { 3: 'anon_inode:[userfaultfd]' } }], { spec });
  assert.deepEqual(
    found.map(({ name, severity }) => [name, severity]),
    [
      ['kernel-object', 'error'],
      ['bind-mount', 'warning'],
    ],
  );
});

test('devices are known by their numbers, and one with a plugin of CRIU is a warning', async () => {
  const found = await of([
    {
      pid: 100,
      descriptors: { 3: '/dev/fuse', 4: '/dev/net/tun', 5: '/dev/nvidia0', 6: '/dev/sda' },
      files: {
        3: node(10, 229),
        4: node(10, 200),
        5: node(195, 0),
        6: { ...node(8, 0), kind: 'block-device' },
      },
    },
  ]);
  assert.deepEqual(
    found.map(({ subject, severity }) => [subject.slice(-1), severity]),
    [
      ['3', 'error'],
      ['6', 'error'],
      ['5', 'warning'],
    ],
  );
});

test('a file of no mount in the container is foreign, the null device of the host as well', async () => {
  const outside = 'flags:\t02\nmnt_id:\t77\n';
  const found = await of([
    {
      pid: 100,
      descriptors: { 0: '/dev/null', 1: '/home/me/out.log' },
      details: { 0: outside, 1: outside },
      files: { 0: node(1, 3) },
    },
  ]);
  assert.deepEqual(names(found), ['foreign-file', 'foreign-file']);
  assert.match(found[0]?.message ?? '', /standard input/);
  assert.match(found[1]?.message ?? '', /standard output/);
});

test('a descriptor that was a file inside and is a pipe by now is no foreign file', async () => {
  const outside = 'flags:\t02\nmnt_id:\t77\n';
  const shell = { pid: 100, descriptors: { 1: '/count' }, details: { 1: outside } };
  assert.deepEqual(names(await of([{ ...shell, later: { 1: 'pipe:[5]' } }])), []);
  assert.deepEqual(names(await of([shell])), ['foreign-file']);
});

test('a removed file is in the way on FUSE always, elsewhere only where it has another name', async () => {
  const found = await of([
    {
      pid: 100,
      descriptors: { 3: '/lost (deleted)', 4: '/run/linked (deleted)', 5: '/run/gone (deleted)' },
      files: { 4: link(1), 5: link(0) },
    },
  ]);
  assert.deepEqual(names(found), ['deleted-file', 'deleted-file']);
  assert.match(found[0]?.message ?? '', /\/lost .*zfs-fuse/);
  assert.match(found[1]?.message ?? '', /\/run\/linked was opened/);
});

test('processes that joined the container are named once for each session, with their exec id', async () => {
  const found = await of(
    [
      { pid: 100 },
      { pid: 110, parent: 50, descriptors: { 3: 'anon_inode:[io_uring]' } },
      { pid: 111, parent: 110 },
    ],
    { execs: new Map([[110, 'shell']]) },
  );
  // Their descriptors are in nobody's way: CRIU leaves these processes out.
  assert.deepEqual(names(found), ['exec-session']);
  assert.match(found[0]?.message ?? '', /^is the exec session shell:/);
});

test('a process of somebody else in its cgroup is named, and not taken for one that joined', async () => {
  const inside = { pid: 'pid:[7]' };
  const found = await of([
    { pid: 100, namespaces: inside },
    { pid: 110, parent: 1, namespaces: inside },
    { pid: 120, parent: 1, namespaces: { pid: 'pid:[8]' } },
    { pid: 121, parent: 120, namespaces: { pid: 'pid:[8]' } },
  ]);
  assert.deepEqual(names(found), ['shared-cgroup', 'joined-process']);
  assert.match(found[0]?.subject ?? '', /^process 120 /);
});

test('a pipe is named only where somebody outside has its other end', async () => {
  const processes: FakeProcess[] = [
    {
      pid: 100,
      descriptors: { 3: 'pipe:[5]', 4: 'pipe:[6]' },
      details: { 3: 'flags:\t00', 4: 'flags:\t01' },
    },
    { pid: 200, parent: 1, descriptors: { 9: 'pipe:[5]' } },
  ];
  const found = await of(processes, { pids: [100] });
  assert.deepEqual(names(found), ['pipe-peer']);
  const shim: FakeProcess[] = processes.map((one) => (one.pid === 100 ? { ...one, parent: 200 } : one));
  assert.deepEqual(names(await of(shim, { pids: [100] })), [], 'a standard stream that a shell puts aside');
  assert.match(found[0]?.message ?? '', /process 200 outside/);
});

test('namespaces of a process that are not the first one, and its tracer, are named', async () => {
  const own = { user: 'user:[1]', net: 'net:[2]' };
  const found = await of([
    { pid: 100, namespaces: own },
    { pid: 101, parent: 100, namespaces: { ...own, net: 'net:[3]' } },
    { pid: 102, parent: 100, inner: [3, 1], namespaces: own },
    { pid: 103, parent: 100, tracer: 102, namespaces: own },
  ]);
  assert.deepEqual(names(found), ['tracer', 'nested-namespace', 'nested-namespace']);
  assert.match(found[1]?.message ?? '', /network namespace/);
  assert.match(found[2]?.message ?? '', /pid namespace/);
});

test('a stopped process is in the way on cgroup v1 alone', async () => {
  const on = (cgroup: string) =>
    of([
      { pid: 100, texts: { cgroup } },
      {
        pid: 101,
        parent: 100,
        texts: { status: 'Name:\tvi\nState:\tT (stopped)\nPPid:\t100\nNSpid:\t101\t2\n' },
      },
    ]);
  assert.deepEqual(names(await on('7:memory:/web\n4:freezer:/web\n0::/\n')), ['stopped']);
  assert.deepEqual(await on('0::/web\n'), []);
});

test('a process of another user is in the way where root has no CAP_SYS_RESOURCE, unless its user namespace is another', async () => {
  const ids = (uid: string, gid: string): string => `Uid:\t${uid}\nGid:\t${gid}\n`;
  const root = ids('0\t0\t0\t0', '0\t0\t0\t0');
  const under = async (capabilities: string, uid: string, gid = '0\t0\t0\t0', user = 'user:[1]') => {
    const processes = [
      { pid: 100, texts: { status: `Name:\tsh\nPPid:\t1\nNSpid:\t100\t1\n${root}` }, namespaces: { user } },
      {
        pid: 101,
        texts: { status: `Name:\tdb\nPPid:\t100\nNSpid:\t101\t2\n${ids(uid, gid)}` },
        namespaces: { user },
      },
    ];
    const proc = fakeProc(processes);
    const self = `CapEff:\t${capabilities}\n${root}`;
    return diagnose(facts([100, 101]), {
      proc: {
        ...proc,
        read: (path) => (path === '/proc/self/status' ? self : proc.read(path)),
        link: (path) => (path === '/proc/self/ns/user' ? 'user:[1]' : proc.link(path)),
      },
      exec: saying(''),
    });
  };
  const [without, all] = ['000001fffeffffff', '000001ffffffffff'];
  const [found, ...more] = await under(without, '999\t999\t999\t999');
  assert.deepEqual([found?.name, found?.subject, more], ['other-user', 'process 101 (db, 2 inside)', []]);
  assert.deepEqual(names(await under(without, '0\t0\t999\t0')), ['other-user'], 'the saved id counts');
  assert.deepEqual(names(await under(without, '0\t0\t0\t0', '5\t5\t5\t5')), ['other-user']);
  assert.deepEqual(await under(without, '0\t0\t0\t0'), []);
  assert.deepEqual(await under(all, '999\t999\t999\t999'), []);
  assert.deepEqual(await under(without, '999\t999\t999\t999', '5\t5\t5\t5', 'user:[2]'), []);
});

test('in a user namespace on FUSE nobody but its root may be writing to a file', async () => {
  const under = (map: string, uid: string, flags: string, target = '/data/1') =>
    of([
      { pid: 100, texts: { uid_map: map } },
      {
        pid: 101,
        parent: 100,
        descriptors: { 3: target, 4: target },
        details: { 3: `flags:\t${flags}\nmnt_id:\t10\n`, 4: `flags:\t${flags}\nmnt_id:\t10\n` },
        texts: { status: `Name:\tdb\nPPid:\t100\nNSpid:\t101\t2\nUid:\t${`${uid}\t`.repeat(4)}\n` },
      },
    ]);
  const inner = '         0     100000      65536\n';
  const [found, ...more] = await under(inner, '100070', '0100002');
  assert.deepEqual(
    [found?.name, found?.subject, more],
    ['fuse-owner', 'process 101 (db, 2 inside), descriptor 3', []],
  );
  assert.deepEqual(names(await under(inner, '100070', '0100001')), ['fuse-owner']);
  assert.deepEqual(await under(inner, '100070', '0100000'), [], 'it only reads');
  assert.deepEqual(await under(inner, '100000', '0100002'), [], 'the namespace’s root');
  assert.deepEqual(await under(inner, '100070', '0100002', '/run/x'), [], 'on a tmpfs');
  assert.deepEqual(await under('         0          0 4294967295\n', '70', '0100002'), []);
});

test('TCP connections are told apart by whether their other end is in the same namespace', async () => {
  const tcp = [
    '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode',
    '   0: 0100007F:0050 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 11 1',
    '   1: 0100007F:C350 0100007F:0050 01 00000000:00000000 00:00000000 00000000     0        0 12 1',
    '   2: 0A00020A:C351 0500000A:1538 01 00000000:00000000 00:00000000 00000000     0        0 13 1',
  ].join('\n');
  assert.equal(parseConnections(tcp).length, 3);
  const found = await of([
    {
      pid: 100,
      texts: { 'net/tcp': tcp },
      descriptors: { 3: 'socket:[11]', 4: 'socket:[12]', 5: 'socket:[13]' },
    },
  ]);
  assert.deepEqual(names(found.filter(({ name }) => name !== 'network-lock')), ['tcp-peer']);
  assert.match(found.at(-1)?.message ?? '', /to 10\.0\.0\.5:5432,/);
});

test('Unix sockets are told apart by their peers, as ss prints them', async () => {
  const unix = [
    'Num       RefCount Protocol Flags    Type St Inode Path',
    '0000000000000000: 00000003 00000000 00000000 0001 03 21 ',
    '0000000000000000: 00000003 00000000 00000000 0001 03 22 /run/a b.sock',
    '0000000000000000: 00000003 00000000 00000000 0001 03 23 ',
    '0000000000000000: 00000002 00000000 00010000 0001 01 24 /run/listens',
  ].join('\n');
  const ss = [
    'u_str ESTAB  0 0                 * 21                * 22',
    'u_str ESTAB  0 0   /run/a b.sock 22                  * 21',
    'u_str ESTAB  0 0                 * 23  /outside/socket 99',
    'u_str LISTEN 0 128  /run/listens 24                  * 0',
  ].join('\n');
  assert.deepEqual([...connectedSockets(unix)], ['21', '22', '23']);
  assert.deepEqual(
    [...parsePeers(ss)],
    [
      ['21', '22'],
      ['22', '21'],
      ['23', '99'],
      ['24', '0'],
    ],
  );
  const descriptors = { 3: 'socket:[21]', 4: 'socket:[22]', 5: 'socket:[23]', 6: 'socket:[24]' };
  const found = await of([{ pid: 100, texts: { 'net/unix': unix }, descriptors }], {}, ss);
  assert.deepEqual(
    found.map(({ name, subject }) => [name, subject.slice(-1)]),
    [['unix-peer', '5']],
  );
});

test('sockets of kinds without an image are named by their protocol', async () => {
  const descriptors = { 3: 'socket:[1]', 4: 'socket:[2]' };
  const found = await of([{ pid: 100, descriptors, protocols: { 3: 'MPTCP', 4: 'UDPv6' } }]);
  assert.deepEqual(names(found), ['socket-kind']);
  assert.match(found[0]?.remedy ?? '', /GODEBUG=multipathtcp=0/);
});

test('bind mounts are named, those that every engine makes are not', async () => {
  const bind = (destination: string) => ({
    destination,
    source: `/srv${destination}`,
    options: ['rbind', 'ro'],
  });
  const mounts = [bind('/etc/hosts'), bind('/data'), { destination: '/proc', source: 'proc', type: 'proc' }];
  const found = await of([{ pid: 100 }], { spec: { mounts } });
  assert.deepEqual(
    found.map(({ subject }) => subject),
    ['mount /data'],
  );
  assert.match(found[0]?.message ?? '', /is \/srv\/data of the host/);
});

test('a first process that sleeps for a time is warned of, one that waits for an event is not', async () => {
  const calls: Record<string, string[]> = { x64: ['35', '230', '232'], arm64: ['101', '115', '22'] };
  const call = calls[process.arch] ?? [];
  const syscall = (text: string) => of([{ pid: 100, texts: { syscall: text } }]);
  assert.deepEqual(names(await syscall(`${call[0]} 0x7ffc 0x7ffc 0x0 0x0 0x0 0x0 0x7ffc 0x7f`)), [
    'interrupted-sleep',
  ]);
  assert.deepEqual(names(await syscall(`${call[1]} 0x0 0x0 0x7ffc 0x0 0x0 0x0 0x7ffc 0x7f`)), [
    'interrupted-sleep',
  ]);
  assert.deepEqual(await syscall(`${call[1]} 0x1 0x1 0x7ffc 0x0 0x0 0x0 0x7ffc 0x7f`), []); // until an instant
  assert.deepEqual(await syscall(`${call[2]} 0x3 0x7ffc 0x1 0x0 0x0 0x0 0x7ffc 0x7f`), []);
  assert.deepEqual(await syscall('running\n'), []);
});

test('a child that sleeps is warned of where that is for long', async () => {
  const calls: Record<string, string[]> = { x64: ['35', '230', '219'], arm64: ['101', '115', '128'] };
  const call = calls[process.arch] ?? [];
  const timespec = (seconds: bigint): Buffer => {
    const buffer = Buffer.alloc(8);
    buffer.writeBigInt64LE(seconds);
    return buffer;
  };
  const memory = new Map([
    [0x1000n, timespec(1000n)],
    [0x2000n, timespec(1n)],
  ]);
  const child = async (syscall: string): Promise<string[]> => {
    const found = await of([{ pid: 100 }, { pid: 101, parent: 100, texts: { syscall }, memory }]);
    return found.map(({ subject, message }) => `${subject}: ${message}`);
  };
  for (const long of [`${call[0]} 0x1000 0x0`, `${call[1]} 0x0 0x0 0x1000 0x0`]) {
    const [said] = await child(`${long} 0x0 0x0 0x7ffc 0x7f`);
    assert.match(said ?? '', /^process 101 \(p101, 2 inside\): sleeps, .* it goes on at once$/);
  }
  for (const other of [
    `${call[0]} 0x2000 0x0`,
    `${call[1]} 0x0 0x0 0x2000 0x0`,
    `${call[1]} 0x0 0x1 0x1000 0x0`, // until an instant
    `${call[0]} 0x3000 0x0`, // gone meanwhile
    `${call[2]} 0x0 0x0`,
  ])
    assert.deepEqual(await child(`${other} 0x0 0x0 0x7ffc 0x7f`), [], other);
});

test('files that are open on a folder of the host are warned of, but for those that are only appended to', async () => {
  const mounts = [{ destination: '/run', source: '/srv/run', options: ['rbind'] }];
  const descriptors = { 3: '/run/grows', 4: '/run/log', 5: '/etc/own', 6: '/run/grows', 7: '/run' };
  const folder = (process.arch === 'arm64' ? 0o40000 : 0o200000).toString(8);
  const details = { 4: 'flags:\t0102001\nmnt_id:\t12\n', 7: `flags:\t0${folder}\nmnt_id:\t12\n` };
  const found = await of([{ pid: 100, descriptors, details }], { spec: { mounts } });
  const inTheWay = found.filter(({ name }) => name === 'bind-file');
  assert.deepEqual(
    inTheWay.map(({ message, severity }) => [message.split(' ')[0], severity]),
    [['/run/grows', 'warning']],
  );
});

test('mapped files without a name are found in the list of mappings', () => {
  const maps = [
    '7f0000000000-7f0000001000 r--p 00000000 00:32 77                         /usr/lib/x.so (deleted)',
    '7f0000001000-7f0000002000 rw-p 00000000 00:00 0                          [heap]',
    '7f0000002000-7f0000003000 r--p 00000000 00:32 78                         /usr/lib/y.so',
  ].join('\n');
  assert.deepEqual(deletedMappings(maps), [
    { range: '7f0000000000-7f0000001000', target: '/usr/lib/x.so (deleted)' },
  ]);
});

test('a process that ends while it is looked at is left out', () => {
  const view = viewContainer(facts([100, 101]), fakeProc([{ pid: 100 }]));
  assert.deepEqual(
    view.processes.map(({ pid }) => pid),
    [100],
  );
});
