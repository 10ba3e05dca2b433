import assert from 'node:assert/strict';
import { test } from 'node:test';
import { takeAtGates } from '../../../src/checkpoint/gates.ts';
import type { Gates } from '../../../src/checkpoint/instant-plan.ts';
import { Updates } from '../../../src/api/updates.ts';
import { Cancelled, InvalidArgument } from '../../../src/errors.ts';
import {
  Gate,
  InstantRequest,
  InstantResponse,
  type TogetherStep,
} from '../../../src/proto/gen/stasis/engine.ts';

const begin: TogetherStep = {
  step: { $case: 'begin', value: InstantRequest.fromPartial({ id: 'web', timeoutMs: 1000n }) },
};
const pass = (value: Gate): TogetherStep => ({ step: { $case: 'pass', value } });

async function all(gates: Gates): Promise<InstantResponse> {
  await gates.still();
  await gates.synced();
  await gates.dumped();
  return InstantResponse.fromPartial({ memory: true });
}

test('the container goes from gate to gate as it is told', async () => {
  const steps = new Updates<TogetherStep>();
  steps.push(begin);
  const said: (Gate | 'done')[] = [];
  for await (const { answer } of takeAtGates(steps, (_, gates) => all(gates))) {
    if (answer?.$case === 'reached') {
      said.push(answer.value);
      steps.push(pass(answer.value));
    } else said.push('done');
  }
  assert.deepEqual(said, [Gate.GATE_STILL, Gate.GATE_SYNCED, Gate.GATE_DUMPED, 'done']);
});

test('a caller that goes away at a gate, or between two, is an error there, and nothing is passed', async () => {
  const steps = new Updates<TogetherStep>();
  steps.push(begin);
  let left = false;
  const answers = takeAtGates(steps, async (_, gates, signal) => {
    signal.addEventListener('abort', () => (left = true));
    return all(gates);
  });
  await assert.rejects(async () => {
    for await (const { answer } of answers) {
      assert.deepEqual(answer, { $case: 'reached', value: Gate.GATE_STILL });
      steps.end();
    }
  }, Cancelled);
  assert.ok(left, 'CRIU is told at once, were it at work');
});

test('another message than the gate that was reached is refused', async () => {
  for (const wrong of [[pass(Gate.GATE_STILL)], [begin, pass(Gate.GATE_DUMPED)]]) {
    const steps = new Updates<TogetherStep>();
    for (const step of wrong) steps.push(step);
    await assert.rejects(async () => {
      for await (const _ of takeAtGates(steps, (_, gates) => all(gates)));
    }, InvalidArgument);
  }
});
