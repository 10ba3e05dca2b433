import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { podsAmong, RewindTogether, throughProcess } from '../../../src/checkpoint/pod.ts';
import { encodeSpec } from '../../../src/checkpoint/spec.ts';
import { FailedPrecondition } from '../../../src/errors.ts';
import { Container } from '../../../src/proto/gen/containerd/containers.ts';

test('a pod is its sandbox with those containers that name it, and nobody else', () => {
  const member = (id: string, sandbox: string | undefined, kind = 'container') => ({
    id,
    record: Container.fromPartial({
      id,
      labels: { 'io.cri-containerd.kind': kind },
      spec: encodeSpec(
        sandbox === undefined ? {} : { annotations: { 'io.kubernetes.cri.sandbox-id': sandbox } },
      ),
    }),
  });
  const pods = podsAmong([
    member('p1', 'p1', 'sandbox'),
    member('a', 'p1'),
    member('b', 'p2'), // whose sandbox is not among them
    member('c', undefined),
    member('d', 'p1'),
  ]);
  assert.deepEqual([...pods], [['p1', ['a', 'd']]]);
});

test('namespaces of a former process are found at the present one, and paths of other kinds stay', () => {
  assert.equal(throughProcess('/proc/4242/ns/ipc', 77), '/proc/77/ns/ipc');
  assert.equal(throughProcess('/var/run/netns/cni-1', 77), '/var/run/netns/cni-1');
});

test('none puts anything back before all are stopped, and none counts before all run', async () => {
  const together = new RewindTogether(2);
  const [a, b] = [together.place('a'), together.place('b')];
  const journal: string[] = [];
  const go = async (name: string, place: typeof a): Promise<void> => {
    await place.stopped();
    journal.push(`${name} is put back`);
    await place.started();
    journal.push(`${name} counts`);
  };
  const first = go('a', a);
  await turn();
  assert.deepEqual(journal, []);
  await Promise.all([first, go('b', b)]);
  assert.deepEqual(journal.slice(0, 2).sort(), ['a is put back', 'b is put back']);
});

test('one task is started at a time, and one that does not start keeps no other from it', async () => {
  const together = new RewindTogether(2);
  const [a, b] = [together.place('a'), together.place('b')];
  let running = 0;
  const start = async (): Promise<void> => {
    assert.equal(++running, 1);
    await turn();
    running--;
    throw new Error('no');
  };
  const results = await Promise.allSettled([a.inTurn(start), b.inTurn(start)]);
  assert.deepEqual(
    results.map((result) => result.status === 'rejected' && String(result.reason)),
    ['Error: no', 'Error: no'],
  );
});

test('the failure of one is that of all, and none brings its former task back before what was restored is gone', async () => {
  const together = new RewindTogether(3);
  const [a, b, c] = [together.place('a'), together.place('b'), together.place('c')];
  const waiting = a.started();
  b.fail(new FailedPrecondition('no such file'));
  await assert.rejects(waiting, (error) => {
    assert.match(String(error), /since b of the same pod could not be brought back: no such file/);
    return true;
  });
  a.fail(await waiting.catch((error: unknown) => error));
  await assert.rejects(c.stopped(), /since b of/, 'the first failure counts');
  let over = false;
  const ended = Promise.all([a.ended(), b.ended()]).then(() => (over = true));
  await turn();
  assert.equal(over, false);
  c.close();
  c.close();
  await ended;
});
