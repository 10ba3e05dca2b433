import assert from 'node:assert/strict';
import { createHook } from 'node:async_hooks';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server as Listener } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite, test, type TestContext } from 'node:test';
import { AGAIN } from '../../../../shim/guard/messages.ts';
import { Deposits } from '../../../../shim/guard/deposits.ts';
import { PATIENCE_MS } from '../../../../shim/guard/requests.ts';
import { Session } from '../../../../shim/guard/session.ts';
import { DirectAnswers } from '../../../../shim/worker/direct-answers.ts';
import { depositsOf } from '../../../../shim/worker/deposit.ts';
import {
  StateResponse,
  TaskDefinition,
  type StateRequest,
} from '../../../../src/proto/gen/containerd/task.ts';
import { Client, Server, type Extension, type Handlers } from '../../../../ttrpc/index.ts';

const listening = (listener: Listener, path: string): Promise<void> =>
  new Promise((resolve) => listener.listen(path, resolve));

/** A worker takes what others have passed. */
const extension: Extension = {
  anyOrder: new DirectAnswers(() => -1).anyOrder,
  receive: () => undefined,
  answer: (_, frame) => frame,
};

const web = { id: 'web', execId: '' };
const methods = Object.keys(TaskDefinition.methods);

/** A client whose connection a session holds, and a way to give it workers. */
async function open(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'session-'));
  const sessions: Session[] = [];
  const deposits = new Deposits();
  const find: Deposits['find'] = (method, payload) => deposits.find(method, payload);
  const front = createServer((socket) => sessions.push(new Session(socket, () => undefined, { find })));
  await listening(front, join(folder, 'front'));
  const client = await Client.connect(join(folder, 'front'));
  const tasks = client.service(TaskDefinition);
  const workers: Server[] = [];
  t.after(async () => {
    client.close();
    for (const worker of workers) await worker.close();
    front.close();
    rmSync(folder, { recursive: true });
  });
  const session = async (): Promise<Session> => {
    while (sessions[0] === undefined) await new Promise((resolve) => setImmediate(resolve));
    return sessions[0];
  };
  const work = async (handlers: Partial<Handlers<TaskDefinition>>): Promise<void> => {
    const path = join(folder, `worker-${workers.length}`);
    const listener = createServer();
    const all = Object.fromEntries(
      methods.map((name) => [name, silence().handler]),
    ) as unknown as Handlers<TaskDefinition>;
    await listening(listener, path);
    const worker = new Server({ extension })
      .register(TaskDefinition, { ...all, ...handlers })
      .listen(listener);
    workers.push(worker);
    const own = await session();
    if (own.isAttached) own.handOver(path);
    else own.attach(path);
  };
  const end = async (why: string): Promise<void> => {
    await workers.at(-1)?.close();
    (await session()).detach(why);
  };
  return { tasks, work, end, session, deposits };
}

/** A handler that never answers, and what tells that it was called. */
function silence(): { called: Promise<void>; handler: () => Promise<never> } {
  let call: () => void = () => undefined;
  const called = new Promise<void>((resolve) => (call = resolve));
  return {
    called,
    handler: () => {
      call();
      return new Promise<never>(() => undefined);
    },
  };
}

suite("a client's connection, while its worker is replaced", () => {
  test('changes are kept back and questions are not, until all is; then the next worker has what nobody answered, unmarked', async (t) => {
    const { tasks, work, session } = await open(t);
    const [state, wait, kill] = [silence(), silence(), silence()];
    await work({ state: state.handler, wait: wait.handler, kill: kill.handler });
    const own = await session();
    own.hold('changes');
    const started = tasks.start({ id: 'web', execId: '' });
    const killed = tasks.kill({ id: 'web', execId: '', signal: 9, all: false });
    const asked = tasks.state(web);
    const waited = tasks.wait(web);
    await Promise.all([state.called, wait.called, kill.called]);
    assert.deepEqual(own.changing, ['Kill'], 'Start was not given');

    own.hold('all');
    const marks: (string | undefined)[] = [];
    await work({
      state: async (_, { metadata }) => {
        marks.push(metadata.get(AGAIN));
        return StateResponse.fromPartial({ pid: 7 });
      },
      start: async () => ({ pid: 7 }),
      kill: async () => ({}),
      wait: async () => ({ exitStatus: 3, exitedAt: undefined }),
    });
    own.hold('nothing');
    assert.equal((await asked).pid, 7);
    assert.equal((await started).pid, 7);
    assert.equal((await waited).exitStatus, 3);
    await killed;
    assert.deepEqual(marks, [undefined]);
  });

  test('where the first worker goes on it gets what was kept back', async (t) => {
    const { tasks, work, session } = await open(t);
    await work({ start: async () => ({ pid: 7 }) });
    const own = await session();
    own.hold('all');
    const started = tasks.start({ id: 'web', execId: '' });
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.deepEqual(own.changing, []);
    own.hold('nothing');
    assert.equal((await started).pid, 7);
  });

  test('what was kept back while others passed is not refused for its number', async (t) => {
    const { tasks, work, session } = await open(t);
    await work({
      start: async () => ({ pid: 7 }),
      state: async () => StateResponse.fromPartial({ pid: 6 }),
    });
    const own = await session();
    own.hold('changes');
    const started = tasks.start({ id: 'web', execId: '' });
    assert.equal((await tasks.state(web)).pid, 6);
    own.hold('nothing');
    assert.equal((await started).pid, 7);
  });
});

suite("a client's connection, over several workers", () => {
  test('what one worker was given and did not answer the next one answers, and knows that it is the next', async (t) => {
    const { tasks, work, end } = await open(t);
    const first = silence();
    await work({ state: first.handler });
    const answer = tasks.state(web);
    await first.called;
    await end('SIGKILL');
    const marks: (string | undefined)[] = [];
    await work({
      state: async ({ id }: StateRequest, { metadata }) => {
        marks.push(metadata.get(AGAIN));
        return { ...StateResponse.decode(new Uint8Array()), id, pid: 5 };
      },
    });
    assert.equal((await answer).pid, 5);
    assert.equal((await tasks.state(web)).pid, 5);
    assert.deepEqual(marks, ['1', undefined]);
  });

  test('a request that comes while there is no worker waits for one', async (t) => {
    const { tasks, work } = await open(t);
    const answer = tasks.pids(web);
    await work({ pids: async () => ({ processes: [] }) });
    assert.deepEqual(await answer, { processes: [] });
  });

  test('where no worker comes requests are refused with the reason, but for those whose refusal would cost a container', async (t) => {
    const { tasks, work, session } = await open(t);
    const [pause, wait] = [tasks.pause(web), tasks.wait(web)];
    const close = tasks.closeIO({ ...web, stdin: true });
    pause.catch(() => undefined);
    await new Promise((resolve) => setTimeout(resolve, 20));
    (await session()).refuse('it does not start');
    await assert.rejects(pause, { code: 14, message: 'it does not start: unavailable' });
    await assert.rejects(tasks.pause(web), { code: 14 });
    await assert.rejects(tasks.pids(web), { code: 14 }, 'of somebody who can ask again');
    await work({ wait: async () => ({ exitStatus: 3, exitedAt: undefined }), closeIO: async () => ({}) });
    assert.equal((await wait).exitStatus, 3);
    await close;
  });

  test('State is refused so that no client takes the task for one that is not there', async (t) => {
    const { tasks, session } = await open(t);
    const state = tasks.state(web);
    state.catch(() => undefined);
    (await session()).refuse('it does not start');
    await assert.rejects(state, { code: 2, message: 'it does not start: unknown' });
  });

  test('State is refused before containerd gives it up, and not while a worker has it', async (t) => {
    const { tasks, work, end } = await open(t);
    const { called, handler } = silence();
    await work({ state: handler });
    const began = performance.now();
    const state = tasks.state(web);
    state.catch(() => undefined);
    await called;
    await end('it has ended');
    await assert.rejects(state, {
      code: 2,
      message: 'it has ended, and the next one does not serve yet: unknown',
    });
    const took = performance.now() - began;
    assert.ok(took > 1700 && took < 1990, `after ${took} ms`);
    const next = tasks.state(web);
    await work({
      state: async () => {
        await new Promise((resolve) => setTimeout(resolve, 2100));
        return StateResponse.fromPartial({ pid: 5 });
      },
    });
    assert.equal((await next).pid, 5);
  });

  test('a request that workers die of is not given to more and more of them', async (t) => {
    const { tasks, work, end } = await open(t);
    const state = tasks.state(web);
    state.catch(() => undefined);
    for (let i = 0; i < 10; i++) {
      const { called, handler } = silence();
      await work({ state: handler });
      await called;
      await end('SIGSEGV');
    }
    await assert.rejects(state, /State is given up, as 10 workers have ended.*SIGSEGV/);
  });
});

suite('what a restarted containerd asks of a task first', () => {
  const first = { id: 'web' };
  const left = depositsOf('web', 3, 7);
  const process = { pid: 7, info: undefined };

  test('is answered by what a worker has left at once while none comes, and the rest is not', async (t) => {
    const { tasks, session, deposits } = await open(t);
    deposits.put('web', left);
    (await session()).refuse('it does not start');
    const { shimPid, taskPid } = await tasks.connect(first);
    assert.deepEqual([shimPid, taskPid], [3, 7]);
    assert.deepEqual(await tasks.pids(first), { processes: [process] });
    await assert.rejects(tasks.pause(web), { code: 14 });
    await assert.rejects(tasks.pids(first), { code: 14 }, 'of somebody who wants all of them');
  });

  test('is answered so too where a worker has not answered for a second, whose answer is dropped then', async (t) => {
    const { tasks, work, deposits } = await open(t);
    deposits.put('web', left);
    let answer: () => void = () => undefined;
    const late = new Promise<void>((resolve) => (answer = resolve));
    await work({
      connect: async () => {
        await late;
        return { shimPid: 1, taskPid: 1, version: '' };
      },
      state: async () => StateResponse.fromPartial({ pid: 5 }),
      pids: async () => ({ processes: [] }),
    });
    assert.equal((await tasks.connect(first)).taskPid, 7);
    answer();
    assert.deepEqual(
      await tasks.pids(first),
      { processes: [process] },
      'who answers the first does not matter',
    );
    assert.equal((await tasks.state(web)).pid, 5);
    assert.deepEqual(await tasks.pids(first), { processes: [] });
  });

  test('leaves no timer behind once it is answered: that would hold all of a connection, which may be over', async (t) => {
    const patience = new Set<number>();
    let started = 0;
    const hook = createHook({
      init(id, type, _, timer: { readonly _idleTimeout?: number }) {
        if (type !== 'Timeout' || timer._idleTimeout !== PATIENCE_MS) return;
        started++;
        patience.add(id);
      },
      destroy: (id) => void patience.delete(id),
    });
    const { tasks, work } = await open(t);
    await work({ connect: async () => ({ shimPid: 3, taskPid: 7, version: '' }) });
    hook.enable();
    t.after(() => hook.disable());
    await tasks.connect(first);
    assert.deepEqual([started, patience.size], [1, 0]);
  });

  test('the second is given to no worker that has not heard the first', async (t) => {
    const { tasks, work, end, deposits } = await open(t);
    deposits.put('web', left);
    const pids = silence();
    await work({ connect: async () => ({ shimPid: 3, taskPid: 7, version: '' }), pids: pids.handler });
    assert.equal((await tasks.connect(first)).taskPid, 7);
    const asked = tasks.pids(first);
    await pids.called;
    await end('SIGKILL');
    assert.deepEqual(await asked, { processes: [process] });
  });

  test('waits for a worker where none has left an answer', async (t) => {
    const { tasks, work, session, deposits } = await open(t);
    deposits.put('web', left);
    deposits.put('web', []);
    const asked = tasks.connect(first);
    (await session()).refuse('it does not start');
    await work({ connect: async () => ({ shimPid: 3, taskPid: 9, version: '' }) });
    assert.equal((await asked).taskPid, 9);
  });
});
