import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Session } from '../../../../shim/guard/session.ts';
import { Turns } from '../../../../shim/guard/turns.ts';
import { TaskDefinition } from '../../../../src/proto/gen/containerd/task.ts';
import { Client, Server, type Handlers } from '../../../../ttrpc/index.ts';

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** A request that is given as soon as it is its turn, unless it is kept back for another reason. */
function request(turns: Turns, names: string[], name: string, isKeptBack = false) {
  const one = { given: false };
  const give = (): void => {
    if (isKeptBack) return;
    one.given = true;
    names.push(name);
  };
  return { one, ask: () => void (turns.take(one, give) && give()) };
}

test('each has its turn after the one before it is done, in the order in which they asked', () => {
  const turns = new Turns();
  const names: string[] = [];
  const [a, b, c] = [
    request(turns, names, 'a'),
    request(turns, names, 'b', true),
    request(turns, names, 'c'),
  ];
  for (const { ask } of [a, b, c, c]) ask();
  assert.deepEqual(names, ['a']);
  turns.done(a.one);
  assert.deepEqual(names, ['a', 'c'], 'what is kept back for another reason holds up nobody');
  turns.done(b.one);
  a.ask();
  turns.clear();
  turns.done(c.one);
  assert.deepEqual(names, ['a', 'c'], 'who had asked before all was cleared asks again');
});

test('one that is slow is not alone for longer than a second', async () => {
  const turns = new Turns();
  const names: string[] = [];
  const [slow, next] = [request(turns, names, 'slow'), request(turns, names, 'next')];
  slow.ask();
  next.ask();
  await new Promise((resolve) => setTimeout(resolve, 1100));
  assert.deepEqual(names, ['slow', 'next']);
});

test('a request that workers die of takes no others along: they are answered between its deaths', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'turns-'));
  const turns = new Turns();
  const sessions: Session[] = [];
  const front = createServer((socket) => sessions.push(new Session(socket, () => undefined, { turns })));
  await new Promise<void>((resolve) => front.listen(join(folder, 'front'), resolve));
  const ids = ['first', 'deadly', 'last'];
  const clients = await Promise.all(ids.map(() => Client.connect(join(folder, 'front'))));
  while (sessions.length < ids.length) await turn();
  t.after(() => {
    for (const client of clients) client.close();
    front.close();
    rmSync(folder, { recursive: true });
  });
  const outcomes = clients.map((client, at) => {
    const asked = client.service(TaskDefinition).resume({ id: ids[at] ?? '' });
    return asked.then(
      () => 'done',
      (error: Error) => error.message,
    );
  });
  let ends = 0;
  let isOver = false;
  void Promise.all(outcomes).then(() => (isOver = true));
  while (!isOver) {
    const path = join(folder, `worker-${ends}`);
    const dies = Promise.withResolvers<void>();
    const never = (): Promise<never> => new Promise<never>(() => undefined);
    const all = Object.fromEntries(
      Object.keys(TaskDefinition.methods).map((name) => [name, never]),
    ) as unknown as Handlers<TaskDefinition>;
    // It dies some time after it was given the deadly one, and is slower with each of the others than that.
    const resume: Handlers<TaskDefinition>['resume'] = async ({ id }) => {
      if (id === 'deadly') setTimeout(dies.resolve, 5);
      else await new Promise((resolve) => setTimeout(resolve, 20));
      return id === 'deadly' ? never() : {};
    };
    const listener = createServer();
    await new Promise<void>((resolve) => listener.listen(path, resolve));
    const worker = new Server().register(TaskDefinition, { ...all, resume }).listen(listener);
    for (const session of sessions) session.attach(path);
    await Promise.race([dies.promise, Promise.all(outcomes)]);
    await worker.close();
    turns.clear();
    if (!isOver) for (const session of sessions) session.detach('SIGSEGV');
    ends++;
  }
  const [first, deadly, last] = await Promise.all(outcomes);
  assert.deepEqual([first, last], ['done', 'done']);
  assert.match(deadly ?? '', /Resume is given up, as 10 workers have ended.*SIGSEGV/);
});
