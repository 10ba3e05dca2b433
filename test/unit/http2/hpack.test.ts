import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeFields, type Field, FieldDecoder } from '../../../src/http2/hpack.ts';

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(' ', ''), 'hex');

/** The examples of RFC 7541, appendix C: header blocks of one connection each. */
const examples: Readonly<
  Record<string, { limit: number; blocks: readonly (readonly [string, readonly Field[]])[] }>
> = {
  'C.4, requests with a dynamic table and Huffman strings': {
    limit: 4096,
    blocks: [
      [
        '8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff',
        [
          [':method', 'GET'],
          [':scheme', 'http'],
          [':path', '/'],
          [':authority', 'www.example.com'],
        ],
      ],
      [
        '8286 84be 5886 a8eb 1064 9cbf',
        [
          [':method', 'GET'],
          [':scheme', 'http'],
          [':path', '/'],
          [':authority', 'www.example.com'],
          ['cache-control', 'no-cache'],
        ],
      ],
      [
        '8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf',
        [
          [':method', 'GET'],
          [':scheme', 'https'],
          [':path', '/index.html'],
          [':authority', 'www.example.com'],
          ['custom-key', 'custom-value'],
        ],
      ],
    ],
  },
  'C.6, responses that throw entries out of a small table': {
    limit: 256,
    blocks: [
      [
        '4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3',
        [
          [':status', '302'],
          ['cache-control', 'private'],
          ['date', 'Mon, 21 Oct 2013 20:13:21 GMT'],
          ['location', 'https://www.example.com'],
        ],
      ],
      [
        '4883 640e ffc1 c0bf',
        [
          [':status', '307'],
          ['cache-control', 'private'],
          ['date', 'Mon, 21 Oct 2013 20:13:21 GMT'],
          ['location', 'https://www.example.com'],
        ],
      ],
      [
        '88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07',
        [
          [':status', '200'],
          ['cache-control', 'private'],
          ['date', 'Mon, 21 Oct 2013 20:13:22 GMT'],
          ['location', 'https://www.example.com'],
          ['content-encoding', 'gzip'],
          ['set-cookie', 'foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1'],
        ],
      ],
    ],
  },
};

for (const [name, { limit, blocks }] of Object.entries(examples)) {
  test(`header blocks are read as in RFC 7541, ${name}`, () => {
    const decoder = new FieldDecoder(limit);
    for (const [block, fields] of blocks) assert.deepEqual(decoder.decode(hex(block)), fields);
  });
}

test('a table of size 0 keeps nothing, and one that grows past what was said is refused', () => {
  const decoder = new FieldDecoder(4096);
  const kept = hex('4001 6101 62'); // a: b, to be kept as entry 62
  assert.deepEqual(decoder.decode(Buffer.concat([kept, hex('be')])), [
    ['a', 'b'],
    ['a', 'b'],
  ]);
  assert.throws(() => decoder.decode(hex('20 be')), /entry 62/);
  assert.throws(() => decoder.decode(hex('3fe2 1f')), /larger than allowed/); // 4097
  assert.throws(() => new FieldDecoder(0).decode(Buffer.concat([kept, hex('be')])), /entry 62/);
});

test('an entry that is larger than the table empties it', () => {
  const decoder = new FieldDecoder(64);
  decoder.decode(hex('4001 6101 62'));
  const large = Buffer.concat([hex('4001 63 7f01'), Buffer.alloc(128, 'x')]);
  assert.equal(decoder.decode(large)[0]?.[1].length, 128);
  assert.throws(() => decoder.decode(hex('be')), /entry 62/);
});

test('what is written is read again', () => {
  const fields: Field[] = [
    [':status', '200'],
    ['grpc-message', 'x'.repeat(300)],
    ['a', ''],
  ];
  assert.deepEqual(new FieldDecoder(0).decode(encodeFields(fields)), fields);
});
