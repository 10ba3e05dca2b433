import assert from 'node:assert/strict';
import { test } from 'node:test';
import { table } from '../../../src/cli/table.ts';
import { oneLine, printable } from '../../../src/cli/text.ts';
import { age, duration, rfc3339, size } from '../../../src/units.ts';
import { ago, now } from './harness.ts';

test('sizes have IEC units and at most three digits before the unit', () => {
  const cases: [number | bigint, string][] = [
    [0, '0 B'],
    [1, '1 B'],
    [1023, '1023 B'],
    [1024, '1.0 KiB'],
    [1536n, '1.5 KiB'],
    [102_400, '100 KiB'],
    [1_048_575, '1.0 MiB'],
    [8n << 20n, '8.0 MiB'],
    [512n << 20n, '512 MiB'],
    [5n << 30n, '5.0 GiB'],
    [1n << 62n, '4.0 EiB'],
  ];
  for (const [bytes, text] of cases) assert.equal(size(bytes), text);
});

test('durations are in ms below a second and never round to another unit', () => {
  const cases: [number | bigint, string][] = [
    [0, '0 ms'],
    [420_000, '0.42 ms'],
    [9_999_000, '10.0 ms'],
    [23_400_000n, '23.4 ms'],
    [99_960_000, '100 ms'],
    [999_400_000, '999 ms'],
    [999_600_000, '1.00 s'],
    [1_240_000_000n, '1.24 s'],
    [59_999_000_000, '1 min 0 s'],
    [123_000_000_000n, '2 min 3 s'],
  ];
  for (const [ns, text] of cases) assert.equal(duration(ns), text);
});

test('ages are in the largest unit that fits', () => {
  assert.deepEqual(
    [-5, 0, 1, 119, 120, 7199, 7200, 172_799, 172_800].map((seconds) => age(ago(seconds), now)),
    ['now', 'now', '1 s ago', '119 s ago', '2 min ago', '119 min ago', '2 h ago', '47 h ago', '2 d ago'],
  );
  assert.equal(age(undefined, now), '-');
});

test('instants keep their nanoseconds', () => {
  assert.equal(rfc3339({ seconds: 1_767_323_045n, nanos: 12 }), '2026-01-02T03:04:05.000000012Z');
  assert.equal(rfc3339(undefined), null);
  assert.equal(rfc3339({ seconds: 1n << 62n, nanos: 0 }), null);
});

test('columns line up, numbers to the right', () => {
  assert.equal(
    table(
      ['NAME', 'SIZE'],
      [
        ['a', '10 B'],
        ['größer', '9 B'],
      ],
      ['SIZE'],
    ),
    'NAME    SIZE\na       10 B\ngrößer   9 B\n',
  );
});

test('text from elsewhere cannot move the cursor or reorder what is read', () => {
  assert.equal(printable('a\u001b[2Jb\u202ec\r'), 'a\\u{1b}[2Jb\\u{202e}c\\u{d}');
  assert.equal(
    oneLine('it lacks a capability:\n  one\nIt is running.\nlast'),
    'it lacks a capability: one; It is running. last',
  );
  assert.equal(oneLine('one\n\n  two\r\nthree\n'), 'one; two; three');
  assert.equal(printable('größer 容器'), 'größer 容器');
});
