import assert from 'node:assert/strict';
import { appendFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite, test, type TestContext } from 'node:test';
import { EventJournal } from '../../../../shim/events/journal.ts';
import { EventQueue, type Event } from '../../../../shim/events/queue.ts';
import { silent } from '../../../../src/log.ts';

function file(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'journal-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return join(folder, 'events/x');
}

/** A containerd that takes as many events as it is told to, and then never answers. */
function taking(count: number): {
  topics: string[];
  publish: (event: Event) => Promise<void>;
  close: () => void;
} {
  const topics: string[] = [];
  return {
    topics,
    publish: async ({ topic }) => {
      topics.push(topic);
      if (topics.length > count) await new Promise(() => undefined);
    },
    close: () => undefined,
  };
}

/** Long enough for what may leave to do so, which is a turn of the loop after it was published, however busy the machine. */
async function turn(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 10));
  await new Promise((resolve) => setImmediate(resolve));
}
const exit = { containerId: 'web', id: 'web', pid: 7, exitStatus: 0, exitedAt: undefined };

suite('events that outlive the process that published them', () => {
  test('what containerd has not acknowledged goes out first in the next process, in its order, and once', async (t) => {
    const path = file(t);
    const before = taking(1);
    const first = new EventQueue(before, silent, new EventJournal(path));
    first.begin();
    first.publish('start', { containerId: 'web', pid: 7 });
    first.publish('paused', { containerId: 'web' });
    first.publish('exit', exit);
    await turn();
    assert.deepEqual(before.topics, ['/tasks/start', '/tasks/paused']);

    const after = taking(9);
    const second = new EventQueue(after, silent, new EventJournal(path));
    second.publish('exit', exit); // it was published and not written down: the process found it anew
    second.resumed();
    second.publish('paused', { containerId: 'web' });
    await turn();
    assert.deepEqual(after.topics, [], 'another process may go on');
    second.begin();
    await second.flush();
    assert.deepEqual(after.topics, ['/tasks/paused', '/tasks/exit', '/tasks/paused']);
    assert.equal(readFileSync(path, 'utf8'), '', 'nothing waits');
  });

  test('what a request repeats that is given to the next process again is not said again, and what follows is', async (t) => {
    const path = file(t);
    const first = new EventQueue(taking(0), silent, new EventJournal(path));
    first.begin();
    first.publish('start', { containerId: 'web', pid: 7 });
    first.publish('paused', { containerId: 'web' });
    first.publish('paused', { containerId: 'db' });

    const after = taking(9);
    const second = new EventQueue(after, silent, new EventJournal(path));
    second.resumed();
    second.begin();
    second.publish('paused', { containerId: 'web' });
    second.publish('resumed', { containerId: 'web' });
    second.publish('resumed', { containerId: 'db' });
    second.publish('paused', { containerId: 'db' });
    await second.flush();
    assert.deepEqual(after.topics, [
      ...['/tasks/start', '/tasks/paused', '/tasks/paused'],
      ...['/tasks/resumed', '/tasks/resumed', '/tasks/paused'],
    ]);
  });

  test('a task that is undone was never made, and one of the same name before it was', async (t) => {
    const path = file(t);
    const created = { bundle: '/b', rootfs: [], io: undefined, checkpoint: '', pid: 7 };
    const first = new EventQueue(taking(0), silent, new EventJournal(path));
    first.publish('create', { containerId: 'old', ...created });
    first.publish('exit', { ...exit, containerId: 'old' });
    first.publish('create', { containerId: 'web', ...created });
    const second = new EventQueue(taking(0), silent, new EventJournal(path));
    for (const name of ['old', 'web', 'none']) second.withdraw(name);
    assert.deepEqual(
      new EventJournal(path).left.map(({ topic }) => topic),
      ['/tasks/create', '/tasks/exit'],
    );
  });

  test('an event leaves after the step in which it was published: what it tells of is written down by then', async (t) => {
    const sink = taking(9);
    const queue = new EventQueue(sink, silent, new EventJournal(file(t)));
    queue.begin();
    queue.publish('paused', { containerId: 'web' });
    assert.deepEqual(sink.topics, []);
    await queue.flush();
    assert.deepEqual(sink.topics, ['/tasks/paused']);
  });

  test('a line that was cut off in its middle is nothing', (t) => {
    const path = file(t);
    const journal = new EventJournal(path);
    journal.add({ timestamp: { seconds: 1n, nanos: 2 }, topic: '/a', typeUrl: 'A', value: Buffer.from('x') });
    appendFileSync(path, '{"seconds":"1","na');
    assert.deepEqual(
      new EventJournal(path).left.map(({ topic }) => topic),
      ['/a'],
    );
  });
});
