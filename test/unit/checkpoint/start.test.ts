import assert from 'node:assert/strict';
import { closeSync, constants, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { startTask } from '../../../src/checkpoint/start.ts';
import type { NamespaceClient } from '../../../src/containerd/client.ts';
import { hasErrno } from '../../../src/errors.ts';
import { Container } from '../../../src/proto/gen/containerd/containers.ts';
import { makeFifo } from '../../../src/sys/fifo.ts';

const { O_WRONLY, O_NONBLOCK } = constants;

/** What a shim that insists on a reader finds when it opens this for writing. */
function openForWriting(path: string): boolean {
  try {
    closeSync(openSync(path, O_WRONLY | O_NONBLOCK));
    return true;
  } catch (error) {
    if (hasErrno(error, 'ENXIO')) return false;
    throw error;
  }
}

test('streams that nobody reads any more have a reader while a task is made, and none afterwards', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'stasis-start-'));
  try {
    const [stdout, stderr, file] = ['stdout', 'stderr', 'file'].map((name) => join(folder, name));
    assert.ok(stdout !== undefined && stderr !== undefined && file !== undefined);
    for (const path of [stdout, stderr]) makeFifo(path, 0o600);
    writeFileSync(file, '');
    assert.equal(openForWriting(stdout), false);
    const seen: boolean[] = [];
    const look = (): void => void seen.push(openForWriting(stdout), openForWriting(stderr));
    const tasks = {
      create: async () => {
        look();
        return { pid: 7 };
      },
      start: async () => {
        look(); // a restored one opens them here
        return { pid: 7 };
      },
    };
    const client = { namespace: 'default', tasks } as unknown as NamespaceClient;
    const container = Container.fromPartial({ id: 'web' });
    const start = (io: { stdout: string; stderr: string }): Promise<{ pid: number }> =>
      startTask(client, container, {
        mounts: [],
        io: { terminal: false, stdin: '', ...io },
        imageDir: undefined,
      });
    assert.equal((await start({ stdout, stderr })).pid, 7);
    assert.deepEqual(seen, [true, true, true, true]);
    assert.equal(openForWriting(stdout), false);
    for (const path of ['', '/dev/null', file, join(folder, 'gone'), `file://${file}`])
      await start({ stdout: path, stderr: '' });
  } finally {
    rmSync(folder, { recursive: true });
  }
});
