import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Code, Metadata, NAMESPACE_KEY, StatusError, toStatusError } from '../../../ttrpc/index.ts';

test('an error class of another library keeps its code and message', () => {
  class NotFound extends Error {
    readonly code = 5;
  }
  const status = toStatusError(new NotFound('task web: not found'));
  assert.ok(status instanceof StatusError);
  assert.equal(status.code, Code.NotFound);
  assert.equal(status.message, 'task web: not found');
  assert.ok(status.cause instanceof NotFound);
});

test('what is thrown without a usable code is Unknown, with its message', () => {
  const withCode = (code: unknown) => Object.assign(new Error('m'), { code });
  const thrown = [new Error('m'), 'm', withCode(0), withCode(17), withCode(-1), withCode('5'), withCode(2.5)];
  thrown.push(new DOMException('m', 'NotFoundError')); // its code, 8, is a number of another list
  for (const one of thrown) {
    const { code, message } = toStatusError(one);
    assert.deepEqual([code, message], [Code.Unknown, 'm']);
  }
});

test('a thrown value that cannot become text does not throw again', () => {
  assert.equal(toStatusError(Object.create(null)).code, Code.Unknown);
  assert.equal(toStatusError(undefined).message, 'undefined');
  assert.equal(toStatusError(Symbol('s')).message, 'Symbol(s)');
});

test('metadata keys are found whatever their case, with all their values in order', () => {
  const metadata = Metadata.from({ [NAMESPACE_KEY.toUpperCase()]: 'k8s.io', many: ['1', '2'] });
  assert.equal(metadata.get(NAMESPACE_KEY), 'k8s.io');
  assert.equal(metadata.get('MANY'), '1');
  assert.deepEqual(metadata.getAll('many'), ['1', '2']);
  assert.equal(metadata.get('none'), undefined);
  metadata.append('many', '3').set('one', 'x');
  metadata.delete('Containerd-namespace-ttrpc');
  assert.deepEqual(
    [...metadata],
    [
      ['many', '1'],
      ['many', '2'],
      ['many', '3'],
      ['one', 'x'],
    ],
  );
});

test('a metadata key named like a property of objects is an ordinary key', () => {
  const metadata = new Metadata().append('__proto__', 'x').append('constructor', 'y');
  assert.equal(metadata.get('__proto__'), 'x');
  assert.equal(metadata.get('constructor'), 'y');
  assert.equal(metadata.get('toString'), undefined);
});
