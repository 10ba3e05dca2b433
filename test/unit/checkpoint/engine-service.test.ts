import assert from 'node:assert/strict';
import { test } from 'node:test';
import { engineService, planOf } from '../../../src/checkpoint/engine-service.ts';
import { stockPlan } from '../../../src/checkpoint/stock.ts';
import { UndoStack } from '../../../src/checkpoint/undo.ts';
import { InvalidArgument, NotFound } from '../../../src/errors.ts';
import { CheckpointOptions } from '../../../src/proto/gen/containerd/runc_options.ts';
import { InstantRequest } from '../../../src/proto/gen/stasis/engine.ts';

const request = (fields: Partial<InstantRequest>): InstantRequest =>
  InstantRequest.fromPartial({ id: 'web', ...fields });
const unused = (): never => {
  throw new Error('must not be called');
};

test('a request that asks for nothing, or names things relatively, is refused', () => {
  for (const fields of [
    {},
    { imageDir: 'image', workDir: '/w' },
    { imageDir: '/image', workDir: '' },
    { snapshot: 'tank/web@now', syncPath: 'x' },
    { snapshot: 'tank/web', syncPath: '/x' },
    { imageDir: '/image', workDir: '/w', parentPath: '/pre-1' },
  ]) {
    assert.throws(() => planOf(request(fields)), InvalidArgument, JSON.stringify(fields));
  }
});

test('a deadline that was not set is not zero', () => {
  assert.ok(planOf(request({ imageDir: '/i', workDir: '/w' })).timeoutMs > 0);
});

test('a container that the shim does not hold is NotFound, and Describe says so without an error', async () => {
  const service = engineService(
    { find: () => undefined },
    { zfs: { snapshot: unused, destroyIdempotent: unused } },
  );
  const { signal } = new AbortController();
  await assert.rejects(service.checkpoint(request({ imageDir: '/i', workDir: '/w' }), { signal }), NotFound);
  const folders = { imageDir: '/pre', workDir: '/w', parentPath: '', timeoutMs: 0n };
  await assert.rejects(service.preDump({ id: 'web', ...folders }, { signal }), NotFound);
  const answer = await service.describe({ id: 'web' });
  assert.equal(answer.hasContainer, false);
  assert.ok(answer.preDumps);
  assert.equal(answer.shimPid, process.pid);
});

test('a stock client’s options reach CRIU, and its image path wins over the request’s', () => {
  const options = CheckpointOptions.fromPartial({
    imagePath: '/mine',
    openTcp: true,
    cgroupsMode: 'full',
    exit: true,
  });
  const plan = stockPlan('/theirs', options, { workDir: '/w', timeoutMs: 1 });
  assert.equal(plan.memory?.imageDir, '/mine');
  assert.equal(plan.memory.criu.manageCgroupsMode, 'full');
  assert.equal(plan.memory.criu.tcpEstablished, true);
  assert.equal(plan.memory.required, true);
  assert.equal(plan.exit, true);
});

test('a stock client’s nonsense is refused by name', () => {
  const refuse = (fields: Partial<CheckpointOptions>, said: RegExp): void =>
    assert.throws(
      () => stockPlan('/x', CheckpointOptions.fromPartial(fields), { workDir: '/w', timeoutMs: 1 }),
      said,
    );
  refuse({ cgroupsMode: 'maybe' }, /"maybe" is no cgroups mode/);
  refuse({ emptyNamespaces: ['moon'] }, /namespace of kind "moon"/);
  refuse({ imagePath: 'relative' }, /must be absolute/);
});

test('one undo that fails does not keep the others from running, and the last step is undone first', async () => {
  const undone: string[] = [];
  const stack = new UndoStack();
  for (const name of ['first', 'second', 'third']) {
    stack.push(name, async () => {
      if (name === 'second') throw new Error('stuck');
      undone.push(name);
    });
  }
  const failures = await stack.rollback();
  assert.deepEqual(undone, ['third', 'first']);
  assert.deepEqual(
    failures.map(({ what }) => what),
    ['second'],
  );
  assert.deepEqual(await stack.rollback(), []);
});
