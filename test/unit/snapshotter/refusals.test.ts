import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Code, codeOf, messageOf } from '../../../src/errors.ts';
import { harness, refusing, ROOT } from './harness.ts';
import { methods, prepared, state, visible } from './methods.ts';

/** What a pool may refuse: what its command prints, and what containerd is told. */
const refusals: Readonly<Record<string, { line: string; code: Code }>> = {
  'a full pool': { line: "cannot create '%': out of space", code: Code.ResourceExhausted },
  'a suspended pool': { line: "cannot open '%': pool I/O is currently suspended", code: Code.Unavailable },
  'a busy dataset': { line: "cannot open '%': dataset is busy", code: Code.FailedPrecondition },
  'a property that is too long': {
    line: "cannot set property for '%': property value too long",
    code: Code.InvalidArgument,
  },
  'a missing permission': { line: "cannot create '%': permission denied", code: Code.PermissionDenied },
};

/** Each with whether a refusal may be put right later, so that the answer is OK. */
const calls: Readonly<Record<string, boolean>> = {
  prepare: false,
  'prepare without parent': false,
  'prepare from a checkpoint': false,
  view: false,
  commit: false,
  update: false,
  'remove of a container': true,
  'remove of a container with checkpoints': true,
  'remove of a view': true,
};

for (const [what, { line, code }] of Object.entries(refusals)) {
  for (const [name, deferrable] of Object.entries(calls)) {
    test(`${what} refuses ${name} by code, dataset and cause, and nothing is half done`, async (t) => {
      const h = await harness(t);
      const dataset = await prepared(h);
      const cause = line.slice(line.lastIndexOf(': ') + 2);
      const store = await h.restart({ zfs: refusing(h.zfs, line) });
      const before = visible(store);
      let refused = false;
      await methods[name]?.(store, dataset).catch((error: unknown) => {
        refused = true;
        assert.equal(codeOf(error), code, messageOf(error));
        assert.ok(messageOf(error).includes(ROOT), messageOf(error));
        assert.ok(messageOf(error).includes(cause), messageOf(error));
      });
      assert.ok(refused || deferrable, 'only a Remove may be put off');
      if (refused) assert.equal(visible(store), before);
      const again = await h.restart();
      if (refused) assert.deepEqual(state(again), state(store));
      assert.equal(visible(again), before, 'the pool is as it was');
    });
  }
}
