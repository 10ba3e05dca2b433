import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Server as Listener, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { Session } from '../../../../shim/guard/session.ts';
import { DirectAnswers } from '../../../../shim/worker/direct-answers.ts';
import { StateResponse, TaskDefinition } from '../../../../src/proto/gen/containerd/task.ts';
import { takeDescriptor, withPidFd } from '../../../../src/sys/pidfd.ts';
import { Client, FrameDecoder, Server, type Extension, type Handlers } from '../../../../ttrpc/index.ts';
import { Direct, requestFrame, setFlags } from '../../../../shim/guard/frames.ts';
import { decodeResponse } from '../../../../ttrpc/message.ts';

const web = { id: 'web', execId: '' };
const TASK = 'containerd.task.v2.Task';
const take = (fd: number): number => withPidFd(process.pid, (self) => takeDescriptor(self, fd));
const listening = (listener: Listener, path: string): Promise<void> =>
  new Promise((resolve) => listener.listen(path, resolve));
const turn = (ms = 0): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Answers as a worker does, and knows how often it did so itself. */
class Counted implements Extension {
  itself = 0;
  readonly #inner = new DirectAnswers(take);

  receive(...args: Parameters<Extension['receive']>): void {
    this.#inner.receive(...args);
  }

  answer(...[connection, frame]: Parameters<Extension['answer']>): Uint8Array {
    const sent = this.#inner.answer(connection, frame);
    if (sent !== frame) this.itself++;
    return sent;
  }
}

async function open(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'direct-'));
  const front = createServer((socket) => sessions.push(new Session(socket, () => undefined)));
  const sessions: Session[] = [];
  const workers: Server[] = [];
  const ends: (() => void)[] = [];
  await listening(front, join(folder, 'front'));
  t.after(async () => {
    for (const end of ends) end();
    for (const worker of workers) await worker.close();
    front.close();
    rmSync(folder, { recursive: true });
  });
  const session = async (): Promise<Session> => {
    while (sessions[0] === undefined) await turn();
    return sessions[0];
  };
  return {
    session,
    client: async () => {
      const client = await Client.connect(join(folder, 'front'));
      ends.push(() => client.close());
      return client.service(TaskDefinition);
    },
    bareClient: (): Socket => {
      const socket = connect(join(folder, 'front'));
      ends.push(() => socket.destroy());
      return socket;
    },
    work: async (handlers: Partial<Handlers<TaskDefinition>>, extension: Extension): Promise<void> => {
      const path = join(folder, `worker-${workers.length}`);
      const listener = createServer();
      await listening(listener, path);
      const never = (): Promise<never> => new Promise<never>(() => undefined);
      const all = Object.fromEntries(
        Object.keys(TaskDefinition.methods).map((name) => [name, never]),
      ) as unknown as Handlers<TaskDefinition>;
      workers.push(
        new Server({ extension }).register(TaskDefinition, { ...all, ...handlers }).listen(listener),
      );
      (await session()).attach(path);
    },
    end: async (): Promise<void> => {
      await workers.at(-1)?.close();
      (await session()).detach('SIGKILL');
    },
  };
}

test('a worker answers State on the client’s own connection, and the guard has it no more', async (t) => {
  const { client, work, session } = await open(t);
  const tasks = await client();
  const counted = new Counted();
  await work(
    { state: async () => StateResponse.fromPartial({ pid: 7 }), pids: async () => ({ processes: [] }) },
    counted,
  );
  assert.equal((await tasks.state(web)).pid, 7);
  assert.equal(counted.itself, 1);
  await tasks.pids(web);
  assert.equal(counted.itself, 1, 'of other requests the guard passes the answer on');
  assert.deepEqual((await session()).state.open, []);
});

test('an error to State is told the client as it is by the guard', async (t) => {
  const { client, work } = await open(t);
  const tasks = await client();
  const counted = new Counted();
  const gone = Object.assign(new Error('web: not found'), { code: 5 });
  await work({ state: () => Promise.reject(gone) }, counted);
  await assert.rejects(tasks.state(web), { code: 5, message: 'web: not found' });
  assert.equal(counted.itself, 1);
});

test('a worker that ended before it could tell of its answer leaves the connection whole: the next one’s is for nobody', async (t) => {
  const { client, work, end, session } = await open(t);
  const tasks = await client();
  const inner = new DirectAnswers(take);
  const NOTHING = new Uint8Array();
  const mute: Extension = {
    receive: (...args) => inner.receive(...args),
    answer: (...args) => (inner.answer(...args), NOTHING),
  };
  await work({ state: async () => StateResponse.fromPartial({ pid: 7 }) }, mute);
  assert.equal((await tasks.state(web)).pid, 7);
  assert.equal((await session()).state.open.length, 1);
  await end();
  let answers = 0;
  const state = async (): Promise<StateResponse> => StateResponse.fromPartial({ pid: 8 + answers++ });
  await work({ state }, new DirectAnswers(take));
  assert.equal(
    (await tasks.state(web)).pid,
    9,
    'the first of the two was the request that had been answered',
  );
  while ((await session()).state.open.length > 0) await turn(); // it hears of an answer after the client
});

test('while a worker may write to the client the guard writes nothing that could be cut: two frames would mix', async (t) => {
  const { client, work } = await open(t);
  const tasks = await client();
  const asked = Promise.withResolvers<StateResponse>();
  const processes = Array.from({ length: 5000 }, (_, pid) => ({ pid, info: undefined }));
  await work({ state: () => asked.promise, pids: async () => ({ processes }) }, new DirectAnswers(take));
  const state = tasks.state(web);
  let isTold = false;
  const pids = tasks.pids(web).then((answer) => ((isTold = true), answer));
  await turn(30);
  assert.equal(isTold, false);
  asked.resolve(StateResponse.fromPartial({ pid: 7 }));
  assert.equal((await state).pid, 7);
  assert.equal((await pids).processes.length, 5000);
});

test('a worker that ends with the right to write gives it back: what was kept goes out', async (t) => {
  const { client, work, end } = await open(t);
  const tasks = await client();
  const processes = Array.from({ length: 5000 }, (_, pid) => ({ pid, info: undefined }));
  await work({ pids: async () => ({ processes }) }, new DirectAnswers(take));
  const state = tasks.state(web);
  const pids = tasks.pids(web);
  await turn(30);
  await end();
  assert.equal((await pids).processes.length, 5000);
  await work({ state: async () => StateResponse.fromPartial({ pid: 8 }) }, new DirectAnswers(take));
  assert.equal((await state).pid, 8);
});

test('a client that does not read for a while gets each answer whole and once, whoever writes it', async (t) => {
  const { bareClient, work } = await open(t);
  const CALLS = 2000;
  const counted = new Counted();
  const client = bareClient();
  await work({ state: async () => StateResponse.fromPartial({ bundle: 'b'.repeat(3000) }) }, counted);
  for (let n = 0; n < CALLS; n++) client.write(requestFrame(1 + 2 * n, TASK, 'State'));
  await turn(300); // the connection's buffers are full
  const blocked = counted.itself;
  assert.ok(blocked > 0 && blocked < CALLS, `${blocked}`);
  const decoder = new FrameDecoder();
  const seen = new Map<number, number>();
  const all = Promise.withResolvers<void>();
  client.on('data', (chunk) => {
    for (const frame of decoder.push(chunk)) {
      assert.ok(frame.kind === 'message' && frame.type === 2);
      const { payload } = decodeResponse(frame.body);
      assert.equal(StateResponse.decode(payload).bundle.length, 3000);
      seen.set(frame.streamId, (seen.get(frame.streamId) ?? 0) + 1);
      if (seen.size === CALLS) all.resolve();
    }
  });
  await all.promise;
  assert.ok([...seen.values()].every((times) => times === 1));
  assert.equal(decoder.midFrame, false);
  client.destroy();
  await once(client, 'close');
});

test('a client cannot let a worker write to it without the guard’s knowing', async (t) => {
  const { bareClient, work, session } = await open(t);
  const counted = new Counted();
  const client = bareClient();
  await work({ pids: async () => ({ processes: [] }) }, counted);
  const request = requestFrame(1, TASK, 'Pids');
  setFlags(request, Direct.Allowed);
  client.write(request);
  await once(client, 'data');
  assert.equal(counted.itself, 0);
  assert.deepEqual((await session()).state.open, []);
});
