import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { ContainerdPeer } from '../../../src/daemon/containerd-peer.ts';

const folder = mkdtempSync(join(tmpdir(), 'stasis-peer-'));
after(() => rmSync(folder, { recursive: true }));

test('the process that listens is trusted, no other; a new one is told of before it is answered', async () => {
  const address = join(folder, 'containerd.sock');
  let [seen, trusted] = [0, false];
  const peer = new ContainerdPeer(address, () => {
    seen++;
    assert.equal(trusted, false);
  });
  assert.equal(await peer.is(process.pid), false, 'nobody listens');
  assert.equal(seen, 0);
  const server = createServer().listen(address);
  await once(server, 'listening');
  trusted = await peer.is(process.pid);
  assert.equal(trusted, true);
  assert.equal(seen, 1);
  assert.equal(await peer.is(process.ppid), false);
  assert.equal(await peer.is(process.pid), true);
  assert.equal(seen, 1, 'it is the same');
  server.close();
});
