import assert from 'node:assert/strict';
import test from 'node:test';
import {
  execStates,
  initStates,
  StateMachine,
  type ExecStateName,
  type ExecVerb,
  type InitStateName,
  type InitVerb,
} from '../../../shim/process/state.ts';

/** What each state of a container's first process refuses; everything else it allows. */
const initTable: Record<InitStateName, readonly InitVerb[]> = {
  created: ['pause', 'resume', 'checkpoint'],
  restorable: ['pause', 'resume', 'checkpoint', 'exec'],
  running: ['start', 'resume', 'delete'],
  paused: ['start', 'pause', 'delete', 'exec'],
  stopped: ['start', 'pause', 'resume', 'update', 'checkpoint', 'exec'],
  deleted: ['start', 'pause', 'resume', 'update', 'checkpoint', 'delete', 'kill', 'exec'],
};
const initVerbs: readonly InitVerb[] = [
  'start',
  'pause',
  'resume',
  'update',
  'checkpoint',
  'delete',
  'kill',
  'exec',
];
const execTable: Record<ExecStateName, readonly ExecVerb[]> = {
  created: [],
  running: ['start', 'delete'],
  stopped: ['start', 'resize'],
  deleted: ['start', 'delete', 'kill', 'resize'],
};
const execVerbs: readonly ExecVerb[] = ['start', 'delete', 'kill', 'resize'];

for (const [name, refused] of Object.entries(initTable)) {
  for (const verb of initVerbs) {
    const refuses = refused.includes(verb);
    test(`a ${name} init ${refuses ? 'refuses' : 'allows'} ${verb}`, () => {
      const machine = new StateMachine<InitStateName, InitVerb>(initStates, name as InitStateName);
      if (refuses) assert.throws(() => machine.require(verb), new RegExp(`cannot ${verb}`));
      else machine.require(verb);
    });
  }
}

for (const [name, refused] of Object.entries(execTable)) {
  for (const verb of execVerbs) {
    const refuses = refused.includes(verb);
    test(`a ${name} exec ${refuses ? 'refuses' : 'allows'} ${verb}`, () => {
      const machine = new StateMachine<ExecStateName, ExecVerb>(execStates, name as ExecStateName);
      if (refuses) assert.throws(() => machine.require(verb), new RegExp(`cannot ${verb}`));
      else machine.require(verb);
    });
  }
}

test('nothing follows deleted, and nothing returns to created', () => {
  for (const name of Object.keys(initStates) as InitStateName[]) {
    assert.throws(() => new StateMachine(initStates, 'deleted').to(name), /invalid state transition/);
    assert.throws(() => new StateMachine(initStates, name).to('created'), /invalid state transition/);
  }
});
