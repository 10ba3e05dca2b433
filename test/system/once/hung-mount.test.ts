// A root file system whose server does not answer, so that mount(2) does not come back: the containers of all others are served.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { defaultSpec } from '../../../src/cli/default-spec.ts';
import { Code, codeOf } from '../../../src/errors.ts';
import { TaskDefinition } from '../../../src/proto/gen/containerd/task.ts';
import type { Mount } from '../../../src/sys/mount.ts';
import { Client, type ServiceClient } from '../../../ttrpc/index.ts';
import { runDir, shimSocket } from '../shim/shims.ts';
import { removeContainer, startContainer, uniqueName } from '../support/container.ts';
import { HungServer } from '../support/hung-server.ts';
import { assertNewOnesAreMade, assertServed } from '../support/served.ts';
import { slowness } from '../support/slowness.ts';
import { ctr, importImage, runtime, stack, until } from '../support/stack.ts';

const LIMIT = { timeout: 60_000 * slowness };
const other = uniqueName('served');
let folder: string;
let server: HungServer;
let client: Client;
let tasks: ServiceClient<TaskDefinition>;

before(async () => {
  await importImage();
  folder = mkdtempSync(join(stack.state, 'data/tmp/hung-'));
  server = await HungServer.make();
  await startContainer(other, ['/bin/sleep', '600']);
  client = await Client.connect(shimSocket(other));
  tasks = client.service(TaskDefinition);
});
after(async () => {
  client.close();
  await removeContainer(other);
  await server.remove();
  rmSync(folder, { recursive: true });
});

interface Hung {
  readonly id: string;
  readonly bundle: string;
  readonly ended: Promise<unknown>;
  settled: boolean;
}
const hung: Hung[] = [];

function create(rootfs: readonly Mount[], options: { timeout?: number } = {}): Hung {
  const id = uniqueName('hung');
  const bundle = join(folder, id);
  mkdirSync(join(bundle, 'rootfs'), { recursive: true });
  const spec = defaultSpec(['/bin/true']);
  const linux = { ...spec.linux, cgroupsPath: `/hung/${id}` };
  writeFileSync(join(bundle, 'config.json'), JSON.stringify({ ...spec, linux }));
  const streams = { terminal: false, stdin: '', stdout: '', stderr: '' };
  const mounts = rootfs.map((mount) => ({ ...mount, options: [...mount.options] }));
  const rest = { checkpoint: '', parentCheckpoint: '', options: undefined };
  const call = tasks.create({ id, bundle, rootfs: mounts, ...streams, ...rest }, options);
  const one: Hung = { id, bundle, ended: call.catch((error: unknown) => error), settled: false };
  void one.ended.then(() => (one.settled = true));
  hung.push(one);
  return one;
}

const bind = (source: string): Mount => ({ type: 'bind', source, target: '', options: ['rbind', 'ro'] });

/** Ways to a root file system that lead there. */
const ways: Record<string, () => readonly Mount[]> = {
  'a bind mount': () => [bind(server.inside)],
  'an overlay': () => {
    const lowerdir = `lowerdir=${server.inside}:${folder}`;
    return [{ type: 'overlay', source: 'overlay', target: '', options: [lowerdir] }];
  },
  'the second of two mounts': () => {
    const first = { type: 'tmpfs', source: 'tmpfs', target: '', options: ['size=64k'] };
    return [first, bind(server.inside)];
  },
};

const mounted = (path: string): boolean => readFileSync('/proc/self/mountinfo', 'utf8').includes(path);

test('mounts that do not come back: others are served, and new ones made', LIMIT, async () => {
  for (const way of Object.values(ways)) create(way());
  await assertServed(other);
  await assertNewOnesAreMade();
  assert.deepEqual(
    hung.filter(({ settled }) => settled),
    [],
  );
});

test('a client that sets a deadline is answered by it', LIMIT, async () => {
  const { ended } = create([bind(server.inside)], { timeout: 300 });
  assert.equal(codeOf(await ended), Code.DeadlineExceeded);
  await assertServed(other);
});

test('a container that is still being made is neither there nor made a second time', LIMIT, async () => {
  const { id, bundle } = hung[0] ?? assert.fail();
  await assert.rejects(tasks.state({ id, execId: '' }), (error) => codeOf(error) === Code.NotFound);
  const again = { id, bundle, rootfs: [], terminal: false, stdin: '', stdout: '', stderr: '' };
  await assert.rejects(
    tasks.create({ ...again, checkpoint: '', parentCheckpoint: '', options: undefined }),
    (error) => codeOf(error) === Code.AlreadyExists,
  );
});

test(
  'an OCI runtime that waits there is ended when its client gives up, and nothing stays',
  LIMIT,
  async (t) => {
    // Of two that look for the same, the second cannot be killed.
    const own = await HungServer.make();
    t.after(() => own.remove());
    const name = uniqueName('hung');
    const args = ['run', '--rootfs', '--runtime', runtime, own.inside, name, '/bin/true'];
    const run = spawn('ctr', args, { stdio: 'ignore' });
    const task = join(runDir, 'tasks/default', name);
    await until('its Create', () => (existsSync(join(task, 'state.json')) ? true : undefined));
    const { bundle } = JSON.parse(readFileSync(join(task, 'state.json'), 'utf8')) as { bundle: string };
    await until('the runtime', () => (worksIn(bundle).length > 0 ? true : undefined));
    await assertServed(other);
    run.kill('SIGKILL');
    await until('its end', () =>
      worksIn(bundle).length === 0 && !existsSync(task) && !existsSync(bundle) ? true : undefined,
    );
    assert.doesNotMatch(await ctr('tasks', 'ls'), new RegExp(name));
    await ctr('containers', 'rm', name);
  },
);

/** Processes that were told of it. */
function worksIn(path: string): string[] {
  const pids = readdirSync('/proc').filter((entry) => /^\d+$/.test(entry));
  return pids.filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(path);
    } catch {
      return false;
    }
  });
}

test('more of them than there are threads: what needs no disk is served', LIMIT, async () => {
  for (let i = 0; i < 20; i++) create([bind(server.inside)]);
  await assertServed(other);
});

test(
  'when the server is gone all fail, naming what could not be mounted, and leave nothing',
  LIMIT,
  async () => {
    server.go();
    await until('the end of all', () => (hung.every(({ settled }) => settled) ? true : undefined));
    for (const { id, bundle, ended } of hung) {
      const error = await ended;
      if (codeOf(error) !== Code.DeadlineExceeded) {
        assert.equal(codeOf(error), Code.FailedPrecondition);
        assert.match(String(error), /mount rootfs component: mount \S+ \(\w+\) on \S+: ENOTCONN/);
      }
      await until(`nothing of ${id}`, () =>
        existsSync(join(runDir, 'tasks/default', id)) ? undefined : true,
      );
      assert.ok(!mounted(bundle), `${bundle} has a mount`);
    }
    await assertServed(other);
    await assertNewOnesAreMade();
  },
);
