import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pause, thawEnded } from '../../../shim/container/pause.ts';
import { initStates, type InitVerb, StateMachine, type InitStateName } from '../../../shim/process/state.ts';
import type { Freezer } from '../../../src/sys/cgroup-freezer.ts';

class FakeFreezer implements Freezer {
  frozen = false;
  readonly #onFreeze: () => void;

  constructor(onFreeze: () => void = () => undefined) {
    this.#onFreeze = onFreeze;
  }

  async freeze(): Promise<void> {
    this.#onFreeze();
    this.frozen = true;
  }

  async thaw(): Promise<void> {
    this.frozen = false;
  }

  async isFrozen(): Promise<boolean> {
    return this.frozen;
  }
}

/** A pid that no process has: the kernel's are below 2^22. */
const PID = 2 ** 22 + 1;

function fakeContainer(onFreeze: (container: { end: () => void }) => void): {
  freezer: FakeFreezer;
  state: StateMachine<InitStateName, InitVerb>;
  parts: Parameters<typeof pause>[0];
} {
  const state = new StateMachine<InitStateName, InitVerb>(initStates, 'created');
  state.to('running');
  const pids = [PID];
  const freezer = new FakeFreezer(() =>
    onFreeze({
      end: () => {
        pids.pop();
      },
    }),
  );
  const accounting = { freezer: () => freezer, pids: async () => [...pids] };
  return { freezer, state, parts: { init: { pid: PID, state }, accounting } };
}

const refused = /^StasisError: cannot pause a stopped container$/;
const lives = (): boolean => false;

test('a running container is paused', async () => {
  const { freezer, state, parts } = fakeContainer(() => undefined);
  await pause(parts, lives);
  assert.equal(state.name, 'paused');
  assert.ok(freezer.frozen);
});

test('one whose end is known while it is being frozen does not stay frozen', async () => {
  const { freezer, state, parts } = fakeContainer(() => state.to('stopped'));
  await assert.rejects(pause(parts, lives), refused);
  assert.equal(state.name, 'stopped');
  assert.equal(freezer.frozen, false);
});

test('one whose process is gone, or is killed and frozen before it died, does not stay frozen', async () => {
  for (const [onFreeze, isDoomed] of [
    [({ end }: { end: () => void }) => end(), lives],
    [() => undefined, () => true],
    [() => undefined, undefined],
  ] as const) {
    const { freezer, state, parts } = fakeContainer(onFreeze);
    await assert.rejects(pause(parts, isDoomed), refused);
    assert.equal(state.name, 'running', 'its end is still to be told');
    assert.equal(freezer.frozen, false);
  }
});

test('an ended container is thawed before it is deleted, whoever froze it; one with processes is not', async () => {
  for (const [ends, left] of [
    [true, false],
    [false, true],
  ] as const) {
    const { freezer, parts } = fakeContainer(({ end }) => (ends ? end() : undefined));
    await freezer.freeze();
    await thawEnded(parts);
    assert.equal(freezer.frozen, left);
  }
});
