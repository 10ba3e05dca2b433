import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import {
  cloneNames,
  defaultCheckpointName,
  validateCheckpointName,
  validateContainerId,
  validateNamespace,
} from '../../../src/checkpoint/names.ts';
import { InvalidArgument } from '../../../src/errors.ts';

const never = (): boolean => false;

suite('names', () => {
  test('what containerd takes as an id is taken', () => {
    for (const id of ['web', 'web-1', 'a.b_c-d', '0', 'x'.repeat(76)]) validateContainerId(id);
    for (const namespace of ['default', 'k8s.io', 'moby']) validateNamespace(namespace);
  });

  test('hostile container names are refused before they reach a path or a command', () => {
    const hostile = [
      '',
      '.',
      '..',
      '../x',
      'a/b',
      '-x',
      'x-',
      'a--b',
      'a b',
      'a\nb',
      'a\0b',
      'é',
      'x@y',
      '$(id)',
      'x'.repeat(77),
    ];
    for (const id of hostile)
      assert.throws(() => validateContainerId(id), InvalidArgument, JSON.stringify(id));
    for (const id of hostile) assert.throws(() => validateNamespace(id), InvalidArgument, JSON.stringify(id));
  });

  test('hostile checkpoint names are refused, and those that Stasis keeps for itself', () => {
    for (const name of ['before', 'v1.2', 'A_b-c', 'x'.repeat(64)]) validateCheckpointName(name);
    for (const name of [
      '',
      '-x',
      '.x',
      'a@b',
      'a/b',
      'a b',
      'a%b',
      'removed:1',
      '../x',
      'a\nb',
      'x'.repeat(65),
    ]) {
      assert.throws(() => validateCheckpointName(name), InvalidArgument, JSON.stringify(name));
    }
  });

  test('the default name is the second, and a second one in it gets a number', () => {
    const now = new Date(1_700_000_000_500);
    assert.equal(defaultCheckpointName(now, never), 'checkpoint-1700000000');
    const taken = new Set(['checkpoint-1700000000', 'checkpoint-1700000000-2']);
    assert.equal(
      defaultCheckpointName(now, (name) => taken.has(name)),
      'checkpoint-1700000000-3',
    );
  });

  test('clones are numbered past names that exist', () => {
    assert.deepEqual(
      cloneNames('', 'web', 3, (name) => name === 'web-2'),
      ['web-1', 'web-3', 'web-4'],
    );
    assert.deepEqual(cloneNames('job{}', 'web', 2, never), ['job1', 'job2']);
    assert.deepEqual(cloneNames('{source}.{}', 'web', 1, never), ['web.1']);
  });

  test('a pattern without a number names one clone only', () => {
    assert.deepEqual(cloneNames('copy', 'web', 1, never), ['copy']);
    assert.throws(() => cloneNames('copy', 'web', 2, never), InvalidArgument);
    assert.throws(() => cloneNames('../{}', 'web', 1, never), InvalidArgument);
  });
});
