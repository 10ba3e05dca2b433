// A guard for each shim, where shims are shared by a pod or not at all.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { shimPid } from '../shim/shims.ts';
import { removeContainer, uniqueName } from '../support/container.ts';
import {
  client,
  configWith,
  counting,
  detached,
  guarded,
  killWorker,
  lines,
  LOOP,
  useConfig,
  withShims,
  workerPid,
} from '../support/guard.ts';
import { ended } from '../support/process.ts';

withShims(guarded);

for (const sharing of ['pod', 'container']) {
  test(`each shim of a ${sharing} has a guard of its own, whose worker can be killed, and which leaves with its last container`, async (t) => {
    useConfig(configWith('guard = "on"', `sharing = "${sharing}"`));
    const pod = (id: string): string[] =>
      sharing === 'pod' ? ['--annotation', `io.kubernetes.cri.sandbox-id=${id}`] : [];
    const names = ['one', 'two', 'other'].map((name) => uniqueName(name));
    t.after(() => removeContainer(...names));
    const [one = '', two = '', other = ''] = names;
    await detached(one, LOOP, ...pod('a'));
    await detached(two, LOOP, ...pod('a'));
    await detached(other, LOOP, ...pod('b'));
    const guards = await Promise.all(names.map(shimPid));
    assert.equal(new Set(guards).size, sharing === 'pod' ? 2 : 3);
    const [guard = 0, , otherGuard = 0] = guards;
    const [worker, bystander] = [await workerPid(guard), await workerPid(otherGuard)];
    const script = `${counting(40, '0.02')}; exit 3`;
    const exec = client('tasks', 'exec', '--exec-id', 'e', one, '/bin/sh', '-c', script);
    await sleep(400);
    await killWorker(guard);
    assert.deepEqual(await exec, { out: lines(40), code: 3 });
    assert.notEqual(await workerPid(guard), worker);
    assert.equal(await workerPid(otherGuard), bystander);
    assert.deepEqual(await Promise.all(names.map(shimPid)), guards);
    await removeContainer(...names);
    await Promise.all([...guards, bystander].map(ended));
  });
}
