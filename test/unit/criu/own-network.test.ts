import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { markNetworkAsOwn } from '../../../src/criu/own-network.ts';

const folder = mkdtempSync(join(tmpdir(), 'stasis-network-'));
after(() => rmSync(folder, { recursive: true }));
const file = join(folder, 'inventory.img');

/** What CRIU 4.2 wrote, with its namespaces' numbers: pid 1, net 2, ipc 3, uts 4, mnt 6. */
const written = Buffer.from(
  `1631315829000000080210011a1808011001180120012801${'3002'}3803400448065007580860052001280130005802620120`,
  'hex',
);

test('CRIU is told to have been in another network namespace, and nothing else is changed', async () => {
  const expected = Buffer.from(written);
  const at = expected.indexOf(Buffer.from('3002', 'hex')) + 1;
  expected[at] = 1;
  writeFileSync(file, written);
  await markNetworkAsOwn(folder);
  assert.deepEqual(readFileSync(file), expected);
});

test('an inventory of another form is refused and left as it is', async () => {
  const others: Record<string, Buffer> = {
    'cut off': written.subarray(0, -2),
    'another magic number': Buffer.concat([Buffer.from('00', 'hex'), written.subarray(1)]),
    'no namespaces': Buffer.from('1631315804000000' + '08021001', 'hex'),
    'a number of two bytes': Buffer.from('163131580b000000' + '0802' + '1a07' + '08012801308001', 'hex'),
    'told already': Buffer.from(written.toString('hex').replace('3002', '3001'), 'hex'),
    nothing: Buffer.alloc(0),
  };
  for (const [what, bytes] of Object.entries(others)) {
    writeFileSync(file, bytes);
    await assert.rejects(markNetworkAsOwn(folder), /inventory of another form/, what);
    assert.deepEqual(readFileSync(file), bytes, what);
  }
});
