import assert from 'node:assert/strict';
import { closeSync, readSync, writeSync } from 'node:fs';
import { after, test } from 'node:test';
import { takeKeptIo } from '../../../../shim/stdio/kept-io.ts';
import { pipe } from '../../../../src/sys/descriptor.ts';
import { Readiness } from '../../../../src/sys/epoll.ts';

const readiness = new Readiness();
after(() => readiness.close());

test('what a terminal has shown, and the worker before had not passed on when the terminal was gone, is passed on', async () => {
  const [mid, client] = [pipe(), pipe()];
  writeSync(mid.write, 'the last words\n');
  closeSync(mid.write);
  const left: Record<string, number> = { mid: mid.read, 'out-to': client.write };
  const io = takeKeptIo(
    { stdin: '', stdout: '/no/matter', stderr: '', terminal: true },
    { containerId: 'web', namespace: 'ns', owner: { uid: 0, gid: 0 } },
    {
      keeper: {
        hold: async () => undefined,
        open: () => assert.fail('all is open'),
        take: (name) => left[name],
        drop: () => undefined,
      },
      readiness,
      prefix: '',
    },
    false,
  );
  await io.drained;
  const bytes = Buffer.alloc(100);
  assert.equal(bytes.toString('utf8', 0, readSync(client.read, bytes)), 'the last words\n');
  assert.equal(readSync(client.read, bytes), 0, 'and its end');
  closeSync(client.read);
  io.close();
});

test('what a client has not read yet is waited for by the worker that follows too', async () => {
  const [out, client] = [pipe(), pipe()];
  writeSync(out.write, 'the last words\n');
  closeSync(out.write);
  const dropped: string[] = [];
  const left: Record<string, number> = { out: out.read, 'out-to': client.write };
  const io = takeKeptIo(
    { stdin: '', stdout: '/no/matter', stderr: '', terminal: false },
    { containerId: 'web', namespace: 'ns', owner: { uid: 0, gid: 0 } },
    {
      keeper: {
        hold: async () => undefined,
        open: () => assert.fail('all is open'),
        take: (name) => left[name],
        drop: (names) => void dropped.push(...names),
      },
      readiness,
      prefix: '',
    },
    false,
  );
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.deepEqual(
    dropped.filter((name) => name.startsWith('out')),
    [],
    'the next one would find nothing that the client has to read',
  );
  const bytes = Buffer.alloc(100);
  assert.equal(bytes.toString('utf8', 0, readSync(client.read, bytes)), 'the last words\n');
  await io.drained;
  assert.deepEqual(dropped, ['out', 'out-to']);
  assert.equal(readSync(client.read, bytes), 0, 'and its end');
  closeSync(client.read);
  io.close();
});
