import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite, test, type TestContext } from 'node:test';
import { createQuestions } from '../../../../shim/guard/control.ts';
import { misfit } from '../../../../shim/guard/messages.ts';
import { Paths } from '../../../../shim/paths.ts';
import { askGuard, type GuardStatus } from '../../../../src/shims/control.ts';
import { listenPrivately } from '../../../../src/sys/listen.ts';
import { controlOf, listShims } from '../../../../src/shims/list.ts';

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'control-'));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

const status: GuardStatus = {
  pid: 5,
  version: '1',
  protocol: 1,
  worker: { pid: 6, version: '2' },
  restarts: 3,
  lastEnd: { why: 'SIGKILL', at: 1000 },
};

suite('questions about a guard', () => {
  test('are answered at a socket for root alone; what is no question is told so', async (t) => {
    const path = join(folder(t), 'g');
    const listener = createQuestions(async (ask) => (ask === 'status' ? { status } : { error: 'not now' }));
    await listenPrivately(listener, path);
    t.after(() => listener.close());
    assert.equal(statSync(path).mode & 0o777, 0o600);
    assert.deepEqual(await askGuard(path, 'status'), { status });
    assert.deepEqual(await askGuard(path, 'upgrade'), { error: 'not now' });
    const raw = connect(path);
    raw.write('nonsense\n');
    const [chunk] = (await raw.toArray()) as Buffer[];
    assert.match(String(chunk), /that is no question/);
    await assert.rejects(askGuard(`${path}-none`, 'status'), /no guard answers at .*-none/);
  });

  test('tell which shims there are, with the containers of each', async (t) => {
    const runDir = folder(t);
    const paths = new Paths(runDir);
    const socket = paths.socket('/run/containerd/containerd.sock', 'k8s.io', '');
    mkdirSync(paths.sockets);
    mkdirSync(paths.task('k8s.io', 'web'), { recursive: true });
    writeFileSync(join(paths.task('k8s.io', 'web'), 'address'), socket);
    writeFileSync(socket, '');
    assert.equal(controlOf(socket), paths.control(socket));
    assert.deepEqual(await listShims(runDir), [], 'one that does not answer is none');
    const listener = createQuestions(async () => ({ status }));
    await listenPrivately(listener, paths.control(socket));
    t.after(() => listener.close());
    assert.deepEqual(await listShims(runDir), [
      { socket, namespace: 'k8s.io', pid: 5, version: '2', guard: status, containers: ['web'] },
    ]);
  });

  test('a worker serves guards from its oldest up to its own protocol, and no others', () => {
    const worker = { version: '2', protocol: 4, oldestGuard: 3 };
    assert.deepEqual(
      [2, 3, 4, 5].map((guard) => misfit(guard, worker) === undefined),
      [false, true, true, false],
    );
    assert.match(misfit(2, worker) ?? '', /version 2 serves guards of protocol 3 to 4, and this guard has 2/);
  });
});
