import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { readSpec } from '../../../shim/container/spec.ts';
import { makeFifo } from '../../../src/sys/fifo.ts';

let bundle: string;
beforeEach(() => (bundle = mkdtempSync(join(tmpdir(), 'stasis-spec-'))));
afterEach(() => rmSync(bundle, { recursive: true }));

function specOf(spec: unknown) {
  writeFileSync(join(bundle, 'config.json'), JSON.stringify(spec));
  return readSpec(bundle);
}

test('a start is left to the runtime where hooks follow it, or a handler takes the program’s place', () => {
  assert.equal(specOf({}).startsSpecially, false);
  assert.equal(specOf({ hooks: { poststart: [], poststop: [{ path: '/x' }] } }).startsSpecially, false);
  assert.equal(specOf({ hooks: { poststart: [{ path: '/x' }] } }).startsSpecially, true);
  assert.equal(specOf({ annotations: { 'run.oci.handler': 'wasm' } }).startsSpecially, true);
});

test('a config.json that is no file is refused at once: a FIFO would hold up all containers', () => {
  makeFifo(join(bundle, 'config.json'), 0o600);
  assert.throws(() => readSpec(bundle), /config\.json: it is no file/);
});
