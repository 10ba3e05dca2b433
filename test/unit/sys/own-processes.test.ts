import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ownProcesses, strangers, type ProcessFacts } from '../../../src/sys/own-processes.ts';

/** pid: [pid namespace, parent] */
const host: Record<string, readonly [namespace: number, parent: number]> = {
  self: [1, 1],
  10: [1, 1], // a shim
  20: [2, 10], // a container's first process
  21: [2, 20],
  22: [3, 21], // in a namespace that the container has made
  23: [3, 22],
  24: [2, 10], // an exec
  30: [4, 11], // another container's
  31: [1, 1], // the host's
};
const facts: ProcessFacts = {
  pidNamespace: (pid) => host[pid]?.[0],
  parent: (pid) => host[pid]?.[1],
};

test('those in the namespace of the first process, and in namespaces below it, are its own', () => {
  assert.deepEqual(ownProcesses([20, 21, 22, 23, 24, 30, 31], 20, facts), [20, 21, 22, 23, 24]);
});

test('without a namespace of its own, or when its first process is gone, all of the cgroup are', () => {
  assert.deepEqual(ownProcesses([31, 30], 31, facts), [31, 30]);
  assert.deepEqual(ownProcesses([20, 30], 99, facts), [20, 30]);
});

test('one that is gone is nobody’s', () => {
  assert.deepEqual(ownProcesses([20, 99], 20, facts), [20]);
});

test('strangers are those that live elsewhere, and stay so when they are looked at again', () => {
  assert.deepEqual(strangers([20, 21, 22, 30, 31], 20, facts), [30, 31]);
  assert.deepEqual(strangers([31, 30], 31, facts), []);
  assert.deepEqual(strangers([20, 99], 20, facts), [], 'one that is gone');
});

test('a process whose parent ends while it is looked at is no stranger', () => {
  const looks: number[] = [];
  const orphan: ProcessFacts = {
    ...facts,
    // The first time its parent has just ended; then it is the first process's child.
    parent: (pid) => (pid === 23 ? (looks.push(pid) > 1 ? 20 : 98) : host[pid]?.[1]),
  };
  assert.deepEqual(strangers([20, 23], 20, orphan), []);
  assert.equal(looks.length, 2);
});
