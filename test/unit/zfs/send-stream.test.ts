import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { Internal } from '../../../src/errors.ts';
import { SendStreamReader, type ChangedObjects } from '../../../src/zfs/send-stream.ts';

type Fields = readonly (readonly [offset: number, bits: 8 | 32 | 64, value: number | bigint])[];

function block(length: number, fields: Fields): Buffer {
  const bytes = Buffer.alloc(length);
  for (const [offset, bits, value] of fields) {
    if (bits === 8) bytes.writeUInt8(Number(value), offset);
    else if (bits === 32) bytes.writeUInt32LE(Number(value), offset);
    else bytes.writeBigUInt64LE(BigInt(value), offset);
  }
  return bytes;
}

const record = (type: number, fields: Fields, payload: Buffer = Buffer.alloc(0)): Buffer =>
  Buffer.concat([block(312, [[0, 32, type], ...fields]), payload]);

const begin = record(0, [[8, 64, 0x2f5bacbacn]]);
const end = record(5, []);
const write = (object: number, length: number): Buffer =>
  record(
    3,
    [
      [8, 64, object],
      [32, 64, length],
    ],
    Buffer.alloc(length, 'x'),
  );
const free = (object: number, offset: number, length: bigint): Buffer =>
  record(4, [
    [8, 64, object],
    [16, 64, offset],
    [24, 64, length],
  ]);
const TO_THE_END = 0xffff_ffff_ffff_ffffn;

/** A file or folder as old ZFS describes it. */
function znode(
  object: number,
  {
    size = 0,
    parent = 3,
    xattr = 0,
    hidden = false,
    folder = false,
  }: Partial<Record<'size' | 'parent' | 'xattr', number>> & {
    hidden?: boolean;
    folder?: boolean;
  } = {},
): Buffer {
  const bonus = block(264, [
    [80, 64, size],
    [88, 64, parent],
    [104, 64, xattr],
    [120, 64, hidden ? 5 : 4],
  ]);
  return record(
    1,
    [
      [8, 64, object],
      [16, 32, folder ? 20 : 19],
      [20, 32, 17],
      [28, 32, 264],
    ],
    bonus,
  );
}

function read(records: readonly Buffer[], step = Infinity): ChangedObjects {
  const bytes = Buffer.concat(records);
  const reader = new SendStreamReader();
  for (let at = 0; at < bytes.length; at += Math.min(step, bytes.length)) {
    reader.push(bytes.subarray(at, at + Math.min(step, bytes.length)));
  }
  return reader.end();
}

suite('a send stream', () => {
  test('tells which objects it is of, and which have another content, however its bytes arrive', () => {
    const records = [
      begin,
      znode(5, { size: 100 }),
      write(5, 1000),
      free(5, 512, TO_THE_END),
      znode(6, { size: 100 }),
      free(6, 512, TO_THE_END),
      znode(7, { size: 2000 }),
      free(7, 0, 512n),
      record(2, [
        [8, 64, 100],
        [16, 64, 1000],
      ]),
      end,
    ];
    for (const step of [Infinity, 1, 311, 4096]) {
      const { objects, contents, plain, anyAttributes } = read(records, step);
      assert.deepEqual([...objects], [5, 6, 7]);
      assert.deepEqual([...contents], [5, 7], 'what lies beyond the end of 6 is no content');
      assert.deepEqual([...plain], [5, 6, 7]);
      assert.equal(anyAttributes, false);
    }
  });

  test('of a file that was cut and grown again, or made anew without data, has another content', () => {
    const { contents } = read([begin, znode(5, { size: 5000 }), free(5, 512, TO_THE_END), end]);
    assert.deepEqual([...contents], [5]);
  });

  test('tells whose attributes changed where their folder is in it', () => {
    const records = [
      begin,
      znode(20, { parent: 9, hidden: true, folder: true }),
      znode(21, { parent: 20, hidden: true }),
      end,
    ];
    const { objects, plain, anyAttributes } = read(records);
    assert.ok(objects.has(9), 'the file itself did not change');
    assert.deepEqual([plain.size, anyAttributes], [0, false]);
  });

  test('says that any attributes may have changed where it does not tell whose', () => {
    assert.equal(read([begin, znode(21, { parent: 20, hidden: true }), end]).anyAttributes, true);
  });

  test('knows a file with attributes from one without', () => {
    assert.deepEqual([...read([begin, znode(5, { xattr: 6 }), znode(7), end]).plain], [7]);
  });

  test('of newer ZFS says of no file that it has no attributes, and passes over all kinds of content', () => {
    const records = [
      record(
        0,
        [
          [4, 32, 24],
          [8, 64, 0x2f5bacbacn],
        ],
        Buffer.alloc(24),
      ),
      record(
        1,
        [
          [8, 64, 5],
          [16, 32, 19],
          [20, 32, 44],
          [28, 32, 170],
        ],
        Buffer.alloc(176),
      ),
      record(
        1,
        [
          [8, 64, 6],
          [16, 32, 19],
          [20, 32, 44],
          [28, 32, 170],
          [36, 32, 320],
        ],
        Buffer.alloc(320),
      ),
      record(
        3,
        [
          [8, 64, 5],
          [32, 64, 131_072],
          [50, 8, 15],
          [96, 64, 4096],
        ],
        Buffer.alloc(4096),
      ),
      record(
        7,
        [
          [8, 64, 8],
          [16, 64, 512],
        ],
        Buffer.alloc(512),
      ),
      record(
        7,
        [
          [8, 64, 9],
          [16, 64, 512],
          [33, 8, 15],
          [40, 64, 128],
        ],
        Buffer.alloc(128),
      ),
      record(
        8,
        [
          [8, 64, 10],
          [52, 32, 61],
        ],
        Buffer.alloc(64),
      ),
      record(6, [[8, 64, 11]]),
      end,
    ];
    const { objects, plain } = read(records, 100);
    assert.deepEqual([...objects], [5, 6, 8, 9, 10, 11]);
    assert.equal(plain.size, 0);
  });

  test('that is cut off, or none, is refused', () => {
    const records = [begin, znode(5), write(5, 1000), end];
    const bytes = Buffer.concat(records);
    for (const length of [0, 100, 312, 700, 1500, bytes.length - 1]) {
      assert.throws(() => read([bytes.subarray(0, length)]), Internal, `${length} bytes`);
    }
    assert.throws(() => read([Buffer.alloc(400)]), Internal);
    assert.throws(() => read([begin, record(77, []), end]), Internal);
  });
});
