import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { lacksSysResource } from '../support/capabilities.ts';
import { removeAll, startContainer, statusOf, uniqueName } from '../support/container.ts';
import { importPython, startPython } from '../support/debian.ts';
import { attempt, ctr, importImage, must, refused, stack, until } from '../support/stack.ts';

interface Report {
  checkpointable: boolean;
  obstacles: { name: string; severity: string; subject: string; message: string; remedy: string }[];
}

async function doctor(name: string): Promise<Report> {
  const result = await attempt('stasis', ['doctor', name, '--json']);
  const report = JSON.parse(result.stdout) as Report;
  assert.equal(result.exitCode, report.checkpointable ? 0 : 5, result.stderr);
  return report;
}

/** System call numbers by architecture. */
const numbers: Record<string, Record<string, number>> = {
  x64: { io_uring_setup: 425, userfaultfd: 323 },
  arm64: { io_uring_setup: 425, userfaultfd: 282 },
};
const numberOf = (name: string): number => numbers[process.arch]?.[name] ?? NaN;

interface Kind {
  readonly what: string;
  /** Lines of Python that make the obstacle. */
  readonly lines: string;
  readonly flags?: string[];
  readonly obstacle: string;
  readonly subject: RegExp;
}

const listener = join(mkdtempSync(join(stack.state, 'data/tmp/doctor-')), 'socket');

const kinds: readonly Kind[] = [
  {
    what: 'an io_uring',
    lines: `call(${numberOf('io_uring_setup')}, 4, ctypes.create_string_buffer(120))`,
    obstacle: 'io-uring',
    subject: /^process \d+ \(python3(\.\d+)?, 1 inside\), descriptor 3$/,
  },
  {
    what: 'a userfaultfd',
    lines: `call(${numberOf('userfaultfd')}, 1)`,
    flags: ['--privileged'],
    obstacle: 'kernel-object',
    subject: /descriptor 3$/,
  },
  {
    what: 'an open device',
    lines: `os.open('/dev/fuse', os.O_RDWR)`,
    flags: ['--device', '/dev/fuse'],
    obstacle: 'device',
    subject: /descriptor 3$/,
  },
  {
    what: 'a multipath TCP socket',
    lines: `kept = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)`,
    obstacle: 'socket-kind',
    subject: /descriptor 3$/,
  },
  {
    what: 'a traced process',
    lines: `
child = os.fork()
if child == 0:
    while True: time.sleep(1)
assert libc.ptrace(0x4206, child, 0, 0) == 0`,
    flags: ['--cap-add', 'CAP_SYS_PTRACE'],
    obstacle: 'tracer',
    subject: /^process \d+ \(python3(\.\d+)?, \d+ inside\)$/,
  },
  ...(existsSync('/sys/fs/cgroup/freezer')
    ? [
        {
          what: 'a process that was stopped, on cgroup v1',
          lines: `
child = os.fork()
if child == 0:
    while True: time.sleep(1)
os.kill(child, 19); time.sleep(0.2)`,
          obstacle: 'stopped',
          subject: /^process \d+ \(python3(\.\d+)?, \d+ inside\)$/,
        },
      ]
    : []),
  ...(lacksSysResource()
    ? [
        {
          what: 'a process of another user, where root has no CAP_SYS_RESOURCE',
          lines: `
child = os.fork()
if child == 0:
    os.setgid(1000); os.setuid(1000)
    while True: time.sleep(1)
time.sleep(0.2)`,
          obstacle: 'other-user',
          subject: /^process \d+ \(python3(\.\d+)?, \d+ inside\)$/,
        },
      ]
    : []),
  {
    what: 'a pid namespace inside',
    lines: `subprocess.Popen(['/bin/unshare', '-p', '-f', '/bin/sleep', '1000']); time.sleep(0.5)`,
    flags: ['--privileged'],
    obstacle: 'nested-namespace',
    subject: /^process \d+ \(sleep, 1 inside\)$/,
  },
  {
    what: 'a user namespace inside',
    lines: `subprocess.Popen(['/bin/unshare', '-U', '/bin/sleep', '1000']); time.sleep(0.5)`,
    flags: ['--privileged'],
    obstacle: 'nested-namespace',
    subject: /^process \d+ \(sleep, \d+ inside\)$/,
  },
  {
    what: 'a Unix socket that leads outside',
    lines: `kept = socket.socket(socket.AF_UNIX); kept.connect('/outside/socket')`,
    flags: ['--mount', `type=bind,src=${join(listener, '..')},dst=/outside,options=rbind:rw`],
    obstacle: 'unix-peer',
    subject: /descriptor 3$/,
  },
  {
    what: 'a removed file with another name left',
    lines: `
kept = open('/run/a', 'w')
os.link('/run/a', '/run/b')
os.unlink('/run/a')`,
    obstacle: 'deleted-file',
    subject: /descriptor 3$/,
  },
];

suite('the doctor names what is in the way of a checkpoint, and CRIU agrees', () => {
  const started: string[] = [];
  let server: ChildProcess | undefined;
  const start = async (lines: string, flags?: string[]): Promise<string> => {
    const name = uniqueName('doctor');
    started.push(name);
    await startPython(name, lines, flags);
    return name;
  };
  before(async () => {
    await importPython();
    const program = `
      const connections = [];
      require('node:net').createServer((one) => connections.push(one)).listen(${JSON.stringify(listener)}, () => console.log('listens'));`;
    server = spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
    await new Promise((resolve) => server?.stdout?.once('data', resolve));
  });
  after(async () => {
    server?.kill();
    await removeAll(...started);
    rmSync(join(listener, '..'), { recursive: true });
  });

  for (const { what, lines, flags, obstacle, subject } of kinds) {
    test(`${what}: process and descriptor are named, nothing is frozen, and a dump fails indeed`, async () => {
      const name = await start(lines, flags);
      const report = await doctor(name);
      const found = report.obstacles.filter(({ severity }) => severity === 'error');
      assert.deepEqual(
        found.map(({ name }) => name),
        [obstacle],
      );
      assert.match(found[0]?.subject ?? '', subject);
      assert.ok((found[0]?.remedy ?? '') !== '');
      assert.equal(await statusOf(name), 'RUNNING');

      const said = await refused(5, 'checkpoint', name, '--require-memory');
      assert.ok(said.includes(found[0]?.message ?? ' '), said);
      assert.ok(said.includes(found[0]?.remedy ?? ' '), said);
      // CRIU itself, asked by a client that nobody has warned.
      const folder = join(listener, '..', `image-${name}`);
      const dump = await attempt('ctr', ['tasks', 'checkpoint', '--image-path', folder, name]);
      assert.notEqual(dump.exitCode, 0, 'CRIU can dump it after all');
      assert.equal(await statusOf(name), 'RUNNING');
    });
  }

  test('on zfs-fuse, a file that another user of a user namespace writes to: a dump of it could not be restored', async (t) => {
    if ((await must('stasis', ['info'])).includes('OpenZFS')) return t.diagnostic('not on zfs-fuse');
    const lines = `
os.chmod('/', 0o777)
if os.fork() == 0:
    os.setgid(7); os.setuid(7)
    own = open('/own', 'w'); os.chmod('/own', 0o600)
    while True: time.sleep(1)
while not os.path.exists('/own'): time.sleep(0.1)`;
    const name = await start(lines, ['--uidmap', '0:100000:65536', '--gidmap', '0:100000:65536']);
    const [found] = (await doctor(name)).obstacles;
    assert.equal(found?.name, 'fuse-owner');
    assert.match(found.subject, /^process \d+ \(python3(\.\d+)?, \d+ inside\), descriptor 3$/);
    const said = await refused(5, 'checkpoint', name, '--require-memory');
    assert.ok(said.includes(found.message), said);
  });

  test('a disk-only checkpoint names the obstacle as its reason, without a freeze for a dump', async () => {
    const name = await start(kinds[0]?.lines ?? '');
    const result = await attempt('stasis', ['checkpoint', name, '--json']);
    assert.equal(result.exitCode, 0, result.stderr);
    const { checkpoint } = JSON.parse(result.stdout) as {
      checkpoint: { memory: string; memoryError: string; timings: { dumpNs: number } };
    };
    assert.equal(checkpoint.memory, 'none');
    assert.match(checkpoint.memoryError, /descriptor 3: an io_uring/);
    assert.equal(checkpoint.timings.dumpNs, 0);
    assert.match(result.stderr, /warning: memory was not dumped: process \d+ .*io_uring/);
  });

  test('the annotation makes the kernel of a container one without io_uring, and it can be dumped', async () => {
    const name = await start(
      `
try:
    call(${numberOf('io_uring_setup')}, 4, ctypes.create_string_buffer(120))
except OSError as error:
    assert error.errno == 38, error
else:
    raise Exception('io_uring works')`,
      ['--annotation', 'stasis.io/checkpointable=true'],
    );
    assert.deepEqual((await doctor(name)).obstacles, []);
    const result = await attempt('stasis', ['checkpoint', name, '--require-memory']);
    assert.equal(result.exitCode, 0, result.stderr);
    const restored = await attempt('stasis', ['restore', name, '--require-memory']);
    assert.equal(restored.exitCode, 0, restored.stderr);
  });

  test('what only is not in the checkpoint is a warning, also of the checkpoint', async () => {
    const name = await start('pass', [
      '--mount',
      `type=bind,src=${join(listener, '..')},dst=/outside,options=rbind:ro`,
    ]);
    const session = spawn('ctr', ['tasks', 'exec', '--exec-id', 'shell', name, '/bin/sleep', '600'], {
      stdio: 'ignore',
    });
    try {
      const report = await until('the session', async () => {
        const seen = await doctor(name);
        return seen.obstacles.some((one) => one.name === 'exec-session') ? seen : undefined;
      });
      assert.equal(report.checkpointable, true);
      assert.deepEqual(report.obstacles.map((one) => one.name).sort(), ['bind-mount', 'exec-session']);
      assert.match(
        report.obstacles.find((one) => one.name === 'exec-session')?.message ?? '',
        /exec session shell/,
      );
      const result = await attempt('stasis', ['checkpoint', name, '--require-memory']);
      assert.equal(result.exitCode, 0, result.stderr);
      assert.match(result.stderr, /warning: mount \/outside: is .* of the host/);
      assert.match(result.stderr, /warning: process \d+ \(sleep, \d+ inside\): is the exec session shell/);
    } finally {
      await ctr('tasks', 'kill', '--exec-id', 'shell', '--signal', 'SIGKILL', name);
      session.kill();
    }
  });

  test('a healthy container has no obstacle, and one that does not run has that one', async () => {
    await importImage();
    const name = uniqueName('doctor');
    started.push(name);
    await startContainer(name, ['/bin/sh', '-c', 'while :; do sleep 1; done']);
    assert.deepEqual((await doctor(name)).obstacles, []);
    await ctr('tasks', 'kill', '--signal', 'SIGKILL', name);
    await until('the end', async () => ((await statusOf(name)) === 'STOPPED' ? true : undefined));
    assert.deepEqual(
      (await doctor(name)).obstacles.map((one) => one.name),
      ['not-running'],
    );
  });

  test("containers of another runtime cannot be dumped, and containerd's own is named", async () => {
    const name = uniqueName('doctor');
    started.push(name);
    await startContainer(name, ['/bin/sleep', '1000'], ['--runtime', 'io.containerd.runc.v2']);
    const [found] = (await doctor(name)).obstacles;
    assert.equal(found?.name, 'runtime');
    assert.match(found?.message ?? '', /io\.containerd\.runc\.v2/);
  });

  test('the host: this one can, and a container that nobody knows is not found', async () => {
    const result = await attempt('stasis', ['doctor', '--json']);
    assert.equal(result.exitCode, 0, result.stdout);
    await refused(3, 'doctor', 'nobody-knows-this');
  });
});
