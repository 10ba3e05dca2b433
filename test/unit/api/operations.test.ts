import assert from 'node:assert/strict';
import { test } from 'node:test';
import { operationMetadata } from '../../../src/api/metadata.ts';
import { Operations } from '../../../src/api/operations.ts';
import { AlreadyExists, Cancelled, NotFound } from '../../../src/errors.ts';

function call(name?: string): { controller: AbortController; context: Parameters<Operations['begin']>[0] } {
  const controller = new AbortController();
  const metadata = new Map(name === undefined ? [] : [[operationMetadata, name]]);
  return { controller, context: { signal: controller.signal, metadata } };
}

test('a call that its client named is asked to stop, and no other', () => {
  const operations = new Operations();
  const [one, two] = [call('one'), call('two')];
  {
    using first = operations.begin(one.context);
    using second = operations.begin(two.context);
    operations.cancel('one');
    assert.equal(first.signal.aborted, true);
    assert.ok(first.signal.reason instanceof Cancelled);
    assert.equal(second.signal.aborted, false);
    two.controller.abort(new Cancelled('broken off'));
    assert.equal(second.signal.aborted, true);
    assert.throws(() => operations.begin(one.context), AlreadyExists);
  }
  assert.throws(() => operations.cancel('one'), NotFound);
  using again = operations.begin(one.context);
  assert.equal(again.signal.aborted, false);
});

test('one without a name is stopped by breaking it off alone', () => {
  const operations = new Operations();
  const { controller, context } = call();
  using running = operations.begin(context);
  using other = operations.begin(call().context);
  controller.abort();
  assert.equal(running.signal.aborted, true);
  assert.equal(other.signal.aborted, false);
  assert.throws(() => operations.cancel(''), NotFound);
});
