import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tcpSocketsInUse } from '../../../src/sys/tcp-sockets.ts';

const four = (inUse: number): string =>
  `sockets: used 9\nTCP: inuse ${inUse} orphan 0 tw 2 alloc 5 mem 300\nUDP: inuse 3 mem 0\n`;
const six = (inUse: number): string => `TCP6: inuse ${inUse}\nUDP6: inuse 4\n`;

test('TCP sockets of both kinds are counted, and nothing else', () => {
  assert.equal(tcpSocketsInUse(four(0), six(0)), 0);
  assert.equal(tcpSocketsInUse(four(2), six(1)), 3);
});

test('a kernel without IPv6 has none of that kind', () => {
  assert.equal(tcpSocketsInUse(four(1), undefined), 1);
});

test('without the first file nothing is known', () => {
  assert.equal(tcpSocketsInUse(undefined, six(1)), undefined);
  assert.equal(tcpSocketsInUse('', six(1)), undefined);
});
