import assert from 'node:assert/strict';
import test from 'node:test';
import { ExitOrder } from '../../../shim/container/exit-order.ts';
import { Queue } from '../../../shim/container/queue.ts';
import { EventQueue, type Event } from '../../../shim/events/queue.ts';
import { silent } from '../../../src/log.ts';

const exit = { pid: 7, status: 0, at: { seconds: 1n, nanos: 0 } };

function order(): { ends: number; order: ExitOrder } {
  const seen = { ends: 0, order: new ExitOrder(() => seen.ends++) };
  return seen;
}

test('the first process ends after its start was announced', () => {
  const seen = order();
  seen.order.starting();
  seen.order.initEnded(exit);
  assert.equal(seen.ends, 0);
  seen.order.announced();
  assert.equal(seen.ends, 1);
});

test('the first process ends after every exec, and once', () => {
  const seen = order();
  seen.order.execStarting('web');
  seen.order.execStarting('web');
  seen.order.initEnded(exit);
  seen.order.execEnded();
  assert.equal(seen.ends, 0);
  seen.order.execEnded();
  assert.equal(seen.ends, 1);
  seen.order.announced();
  assert.equal(seen.ends, 1);
});

test('no exec starts once the first process is gone', () => {
  const { order: exits } = order();
  exits.initGone();
  assert.throws(() => exits.execStarting('web'), /container web init process is not running/);
});

test('an exclusive job waits for shared ones, and they for it', async () => {
  const queue = new Queue();
  const log: string[] = [];
  const sharedEnd = Promise.withResolvers<void>();
  const soon = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5));
  const job = (name: string, end: () => Promise<void>) => async (): Promise<void> => {
    log.push(`${name}+`);
    await end();
    log.push(`${name}-`);
    if (name === 'b') sharedEnd.resolve();
  };
  await Promise.all([
    queue.share(job('a', () => sharedEnd.promise)),
    queue.share(job('b', soon)),
    queue.run(job('c', soon)),
    queue.share(job('d', soon)),
  ]);
  assert.deepEqual(log, ['a+', 'b+', 'b-', 'a-', 'c+', 'c-', 'd+', 'd-']);
});

test('of many shared jobs some run at a time, in the order they came, whether or not they fail', async () => {
  const queue = new Queue();
  let [running, most] = [0, 0];
  const begun: number[] = [];
  const jobs = Array.from({ length: 50 }, (_, i) =>
    queue.share(async () => {
      begun.push(i);
      most = Math.max(most, ++running);
      await new Promise((resolve) => setTimeout(resolve, 1));
      running--;
      if (i % 3 === 0) throw new Error('no');
    }),
  );
  const after = queue.run(async () => assert.equal(running, 0));
  await Promise.allSettled(jobs);
  await after;
  assert.ok(most > 1 && most <= 10, `${most} at a time`);
  assert.deepEqual(
    begun,
    begun.map((_, i) => i),
  );
});

test('a job that fails does not hold up the next', async () => {
  const queue = new Queue();
  await assert.rejects(
    queue.run(() => Promise.reject(new Error('no'))),
    /no/,
  );
  assert.equal(await queue.run(() => Promise.resolve(1)), 1);
});

test('an event leaves after the answer to the request that brought it about', async () => {
  const told: string[] = [];
  const sink = { publish: async (event: Event) => void told.push(event.topic), close: () => undefined };
  const events = new EventQueue(sink, silent);
  const answered = Promise.resolve().then(() => events.publish('paused', { containerId: 'web' }));
  await answered.then(() => undefined).then(() => told.push('answer'));
  await events.flush();
  assert.deepEqual(told, ['answer', '/tasks/paused']);
});

test('events leave in order, one at a time, and one that fails is skipped', async () => {
  const sent: string[] = [];
  let at = 0;
  const sink = {
    async publish(event: Event): Promise<void> {
      assert.equal(at++, 0, 'two at a time');
      await new Promise((resolve) => setTimeout(resolve, 1));
      at--;
      if (event.topic === '/tasks/paused') throw new Error('refused');
      sent.push(event.topic);
      assert.ok(event.timestamp.seconds > 0n);
    },
    close: () => undefined,
  };
  const events = new EventQueue(sink, silent);
  events.publish('create', {
    containerId: 'web',
    bundle: '/b',
    rootfs: [],
    io: undefined,
    checkpoint: '',
    pid: 1,
  });
  events.publish('start', { containerId: 'web', pid: 1 });
  events.publish('paused', { containerId: 'web' });
  events.publish('resumed', { containerId: 'web' });
  await events.flush();
  assert.deepEqual(sent, ['/tasks/create', '/tasks/start', '/tasks/resumed']);
});

test('events that nobody takes do not hold up the end', async () => {
  let giveUp: (reason: Error) => void = () => undefined;
  let published = 0;
  const sink = {
    publish: () =>
      new Promise<void>((_, reject) => {
        published++;
        giveUp = reject;
      }),
    close: () => giveUp(new Error('closed')),
  };
  const events = new EventQueue(sink, silent);
  for (let i = 0; i < 3; i++) events.publish('oom', { containerId: 'web' });
  await events.close(20);
  assert.equal(published, 1, 'the others are dropped');
});

test('the end waits for events that are taken', async () => {
  const sent: string[] = [];
  const sink = {
    async publish(event: Event): Promise<void> {
      await new Promise((resolve) => setTimeout(resolve, 5));
      sent.push(event.topic);
    },
    close: () => undefined,
  };
  const events = new EventQueue(sink, silent);
  for (let i = 0; i < 3; i++) events.publish('oom', { containerId: 'web' });
  await events.close(60_000);
  assert.equal(sent.length, 3);
});
