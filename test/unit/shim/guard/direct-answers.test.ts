import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Server as Listener, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite, test, type TestContext } from 'node:test';
import { NoteBook, Notes } from '../../../../shim/guard/notes.ts';
import { Session } from '../../../../shim/guard/session.ts';
import { DirectAnswers } from '../../../../shim/worker/direct-answers.ts';
import { StateResponse, TaskDefinition } from '../../../../src/proto/gen/containerd/task.ts';
import { takeDescriptor, withPidFd } from '../../../../src/sys/pidfd.ts';
import { Client, FrameDecoder, Server, type Extension, type Handlers } from '../../../../ttrpc/index.ts';
import { Direct, requestFrame, setFlags } from '../../../../shim/guard/frames.ts';
import type { MessageFrame } from '../../../../ttrpc/frame.ts';
import { decodeResponse } from '../../../../ttrpc/message.ts';

const web = { id: 'web', execId: '' };
const TASK = 'containerd.task.v2.Task';
const take = (fd: number): number => withPidFd(process.pid, (self) => takeDescriptor(self, fd));
const listening = (listener: Listener, path: string): Promise<void> =>
  new Promise((resolve) => listener.listen(path, resolve));
const turn = (ms = 0): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** The one frame that the bytes are. */
function decoded(bytes: Uint8Array): MessageFrame {
  const [frame] = new FrameDecoder().push(bytes);
  assert.ok(frame?.kind === 'message');
  return frame;
}

/** Answers as a worker does, and knows how often it did so itself. */
class Counted implements Extension {
  itself = 0;
  readonly #inner = new DirectAnswers(take);

  receive(...args: Parameters<Extension['receive']>): void {
    this.#inner.receive(...args);
  }

  answer(...[connection, frame]: Parameters<Extension['answer']>): Uint8Array | undefined {
    const sent = this.#inner.answer(connection, frame);
    if (sent !== frame) this.itself++;
    return sent;
  }
}

/** @param notes none where the worker has to tell of each answer */
async function open(t: TestContext, notes?: Notes) {
  const folder = mkdtempSync(join(tmpdir(), 'direct-'));
  const front = createServer((socket) => {
    sessions.push(new Session(socket, () => undefined, { note: notes?.open() }));
  });
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

for (const [how, notes] of [
  ['which it tells the guard', () => undefined],
  ['which it notes', () => new Notes()],
] as const)
  suite(`a worker that answers itself, ${how}`, () => {
    test('a worker answers State on the client’s own connection, and the guard has it no more', async (t) => {
      const { client, work, session } = await open(t, notes());
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
      const { client, work } = await open(t, notes());
      const tasks = await client();
      const counted = new Counted();
      const gone = Object.assign(new Error('web: not found'), { code: 5 });
      await work({ state: () => Promise.reject(gone) }, counted);
      await assert.rejects(tasks.state(web), { code: 5, message: 'web: not found' });
      assert.equal(counted.itself, 1);
    });

    test('a worker that ended before it could tell of its answer leaves the connection whole: the next one’s is for nobody', async (t) => {
      const { client, work, end, session } = await open(t, notes());
      const tasks = await client();
      const inner = new DirectAnswers(take);
      const mute: Extension = {
        receive: (connection, frame) =>
          frame.type === Direct.Note ? undefined : inner.receive(connection, frame),
        answer: (...args) => void inner.answer(...args),
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
      const { client, work } = await open(t, notes());
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
      const { client, work, end } = await open(t, notes());
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
      const { bareClient, work } = await open(t, notes());
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
  });

test('what a worker has noted as answered the next one is not asked, though the guard was told nothing', async (t) => {
  const { client, work, end, session } = await open(t, new Notes());
  const tasks = await client();
  await work({ state: async () => StateResponse.fromPartial({ pid: 7 }) }, new DirectAnswers(take));
  assert.equal((await tasks.state(web)).pid, 7);
  await end();
  assert.deepEqual((await session()).state.open, []);
  let asked = 0;
  const state = async (): Promise<StateResponse> => StateResponse.fromPartial({ pid: 8 + asked++ });
  await work({ state }, new DirectAnswers(take));
  assert.equal((await tasks.state(web)).pid, 8);
});

test('a worker that knows of no notes tells the guard: it may be of an older version', async (t) => {
  const { client, work, session } = await open(t, new Notes());
  const tasks = await client();
  const inner = new DirectAnswers(take);
  const older: Extension = {
    receive: (connection, frame) =>
      frame.type === Direct.Note ? undefined : inner.receive(connection, frame),
    answer: (...args) => inner.answer(...args),
  };
  await work({ state: async () => StateResponse.fromPartial({ pid: 7 }) }, older);
  for (let n = 0; n < 3; n++) assert.equal((await tasks.state(web)).pid, 7);
  while ((await session()).state.open.length > 0) await turn(); // it hears of an answer after the client
});

test('a note is used again after all others, and as many as there are: one more connection does without', () => {
  const notes = new Notes();
  const first = notes.open();
  assert.ok(first !== undefined);
  const own = new NoteBook(take);
  const { body } = decoded(first.frame);
  const late = own.find(body);
  late(5);
  assert.equal(first.last, 5);
  assert.equal(notes.open()?.last, 0);
  first.close();
  const others = Array.from({ length: 4095 }, () => notes.open());
  assert.ok(others.every((note) => note?.last === 0));
  assert.equal(notes.open(), undefined, 'what comes more does without');
  late(7);
  assert.equal(others.filter((note) => note?.last === 7).length, 1);
  assert.equal(others.at(-1)?.last, 7, 'the one that was closed came last');
  const successors = new Notes(notes.fd).open();
  late(9);
  assert.equal(successors?.last, 9, 'a program that takes this one’s place sees the same memory');
});

test('a client cannot use the number of a request again: the guard would take one for the other', async (t) => {
  const { bareClient, work } = await open(t);
  const client = bareClient();
  await work({ pids: async () => ({ processes: [] }) }, new DirectAnswers(take));
  const decoder = new FrameDecoder();
  const answers: string[] = [];
  client.on('data', (chunk) => {
    for (const frame of decoder.push(chunk)) {
      assert.ok(frame.kind === 'message');
      answers.push(decodeResponse(frame.body).status?.message ?? 'answered');
    }
  });
  for (const streamId of [3, 3, 1]) client.write(requestFrame(streamId, TASK, 'Pids'));
  while (answers.length < 3) await turn();
  const refused = 'StreamID cannot be re-used and must increment';
  assert.deepEqual(answers.sort(), [refused, refused, 'answered']);
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
