import assert from 'node:assert/strict';
import { test } from 'node:test';
import { edgesOfMemory, touchMemory } from '../../../src/sys/process-memory.ts';

test('the edges of a process are pages that can be read, and what cannot be read is passed over', async () => {
  const edges = edgesOfMemory(process.pid);
  assert.ok(edges.length > 10 && edges.every((address) => address > 0 && address % 4096 === 0));
  await touchMemory(process.pid, [4096, ...edges, 8192]);
});

test('a process that has ended has none, and is passed over', async () => {
  assert.deepEqual(edgesOfMemory(0x7ffffff), []);
  await touchMemory(0x7ffffff, [4096]);
});
