import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { InvalidArgument } from '../../../src/errors.ts';
import type { TarEntry } from '../../../src/tar/entry.ts';
import { decodePax, encodePax, formatPaxTime, parsePaxTime } from '../../../src/tar/pax.ts';
import { TarReader } from '../../../src/tar/reader.ts';
import { encodeEntry, END_OF_ARCHIVE, padding } from '../../../src/tar/writer.ts';

const plain: TarEntry = {
  name: 'etc/passwd',
  type: 'file',
  mode: 0o644,
  uid: 0,
  gid: 0,
  size: 0,
  mtime: { seconds: 1_700_000_000, nanos: 0 },
  linkname: '',
  major: 0,
  minor: 0,
  xattrs: new Map(),
};

/** An archive's entries with the whole of each file, read in pieces of `step` bytes. */
function read(archive: Buffer, step = archive.length): { entry: TarEntry; content: Buffer }[] {
  const reader = new TarReader();
  const found: { entry: TarEntry; content: Buffer }[] = [];
  for (let at = 0; at < archive.length; at += step) {
    for (const event of reader.push(archive.subarray(at, at + step))) {
      if (event.kind === 'entry') found.push({ entry: event.entry, content: Buffer.alloc(event.entry.size) });
      else if (event.kind === 'data')
        event.bytes.copy(found.at(-1)?.content ?? Buffer.alloc(0), event.offset);
    }
  }
  reader.end();
  return found;
}

function archive(...files: readonly (readonly [TarEntry, Buffer?])[]): Buffer {
  return Buffer.concat([
    ...files.flatMap(([entry, content = Buffer.alloc(0)]) => [
      encodeEntry(entry),
      content,
      padding(content.length),
    ]),
    END_OF_ARCHIVE,
  ]);
}

/** A header block with some fields overwritten and the checksum made right. */
function header(fields: readonly (readonly [offset: number, text: string])[]): Buffer {
  const block = Buffer.from(encodeEntry(plain));
  for (const [offset, text] of fields) block.write(text, offset, 'latin1');
  block.fill(' ', 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}

const hostile: readonly [string, TarEntry][] = [
  ['a name of 300 bytes', { ...plain, name: `${'d'.repeat(120)}/${'e'.repeat(178)}/f` }],
  ['a name of bytes that are no UTF-8', { ...plain, name: 'caf\xe9\xff' }],
  ['a name with a newline, a tab and an equals sign', { ...plain, name: 'a\nb\tc=d' }],
  ['a uid beyond 2^21 and one of 32 bits', { ...plain, uid: 2_097_152, gid: 4_294_967_294 }],
  ['times below a second', { ...plain, mtime: { seconds: 1_700_000_000, nanos: 123_456_789 } }],
  ['a time before 1970', { ...plain, mtime: { seconds: -2, nanos: 750_000_000 } }],
  ['a time after 2242', { ...plain, mtime: { seconds: 9_000_000_000, nanos: 0 } }],
  ['set-user-id, set-group-id and sticky bit', { ...plain, mode: 0o7755 }],
  ['a long symbolic link', { ...plain, type: 'symlink', linkname: `../${'x'.repeat(150)}` }],
  ['a hard link', { ...plain, type: 'link', linkname: 'bin/sh' }],
  ['a device with a large minor number', { ...plain, type: 'block', major: 259, minor: 1_048_575 }],
  ['a FIFO', { ...plain, type: 'fifo' }],
  ['a folder', { ...plain, name: 'var/lib/', type: 'directory', mode: 0o1777 }],
  [
    'attributes of any bytes',
    {
      ...plain,
      xattrs: new Map([
        ['security.capability', Buffer.from('0100000200040000000000000000000000000a3d', 'hex')],
        ['user.empty', Buffer.alloc(0)],
        ['user.caf\xe9', Buffer.from([0, 255, 10, 61, 32])],
      ]),
    },
  ],
];

suite('a tar archive', () => {
  for (const [what, entry] of hostile) {
    test(`keeps ${what}, however its bytes arrive`, () => {
      const bytes = archive([entry]);
      for (const step of [bytes.length, 1, 511, 513]) {
        assert.deepEqual(read(bytes, step), [{ entry, content: Buffer.alloc(0) }]);
      }
    });
  }

  test('keeps the content of files of every length around a block, however its bytes arrive', () => {
    const files = [0, 1, 511, 512, 513, 70_000].map((size) => {
      const content = Buffer.from(Array.from({ length: size }, (_, at) => at % 251));
      return [{ ...plain, name: `f${size}`, size }, content] as const;
    });
    const bytes = archive(...files);
    for (const step of [bytes.length, 7, 512, 4096]) {
      assert.deepEqual(
        read(bytes, step),
        files.map(([entry, content]) => ({ entry, content })),
      );
    }
  });

  test('of a plain file is the one block that containerd writes', () => {
    const [block] = [encodeEntry({ ...plain, size: 5 })];
    assert.equal(block.length, 512);
    assert.equal(
      block.toString('latin1', 100, 157),
      '0000644\x000000000\x000000000\x0000000000005\x0014524770400\x00011241\x00 0',
    );
    assert.equal(block.toString('latin1', 257, 345).replace(/\0+/g, '|'), 'ustar|00|0000000|0000000|');
  });

  test('is refused where its bytes are damaged, cut off, or no archive at all', () => {
    const bytes = archive([{ ...plain, size: 600 }, Buffer.alloc(600, 'x')]);
    const damaged = Buffer.from(bytes);
    damaged.write('9', 3);
    assert.throws(() => read(damaged), InvalidArgument);
    for (const length of [100, 512, 1000, 1111])
      assert.throws(() => read(bytes.subarray(0, length)), /cut off/);
    assert.throws(() => read(Buffer.alloc(1024, 'no tar')), InvalidArgument);
    assert.throws(() => read(header([[156, 'V']])), /type "V"/);
  });

  test('ends at the first block of zeros, and what follows is ignored', () => {
    const bytes = Buffer.concat([encodeEntry(plain), Buffer.alloc(512), Buffer.from('anything')]);
    assert.equal(read(bytes).length, 1);
    assert.equal(read(encodeEntry(plain)).length, 1, 'one without an end is taken, as others take it');
  });

  test('never makes its reader throw anything but InvalidArgument, whatever byte is changed', () => {
    const entry = hostile.at(-1)?.[1] ?? plain;
    const bytes = archive([entry], [{ ...plain, size: 3 }, Buffer.from('abc')]);
    for (let at = 0; at < bytes.length; at += 3) {
      const changed = Buffer.from(bytes);
      changed[at] = (changed[at] ?? 0) ^ (1 << (at % 8));
      try {
        read(changed);
      } catch (error) {
        assert.ok(error instanceof InvalidArgument, String(error));
      }
    }
  });

  test('with GNU long names is read', () => {
    const long = 'n'.repeat(300);
    const bytes = Buffer.concat([
      header([
        [156, 'L'],
        [124, '00000000455'],
        [0, '././@LongLink\0'],
      ]),
      Buffer.from(`${long}\0`),
      padding(301),
      header([
        [156, 'K'],
        [124, '00000000455'],
      ]),
      Buffer.from(`${long}\0`),
      padding(301),
      header([[156, '2']]),
    ]);
    const [found] = read(bytes);
    assert.deepEqual([found?.entry.name, found?.entry.linkname, found?.entry.type], [long, long, 'symlink']);
  });

  test('with numbers in base 256, a prefix, and the marks of old archives is read', () => {
    const binary = Buffer.alloc(8);
    binary.writeUInt32BE(3_000_000_000, 4);
    binary[0] = 0x80;
    const [one] = read(header([[108, binary.toString('latin1')]]));
    assert.equal(one?.entry.uid, 3_000_000_000);
    const [two] = read(header([[345, 'usr/share']]));
    assert.equal(two?.entry.name, 'usr/share/etc/passwd');
    const [three] = read(
      header([
        [156, '\0'],
        [0, 'old/folder/\0'],
      ]),
    );
    assert.equal(three?.entry.type, 'directory');
  });

  test('with a file whose name makes it a folder has what follows it, and its content is skipped', () => {
    for (const flag of ['0', '\0']) {
      const bytes = Buffer.concat([
        header([
          [156, flag],
          [0, '/\0'],
          [124, '00000000003\0'],
        ]),
        Buffer.from('abc'),
        padding(3),
        header([[0, 'next\0']]),
      ]);
      const [folder, next] = read(bytes);
      assert.deepEqual([folder?.entry.name, folder?.entry.type, folder?.entry.size], ['/', 'directory', 0]);
      assert.equal(next?.entry.name, 'next');
    }
  });

  test('says nothing of its entries by a global header, as with containerd', () => {
    const records = encodePax(new Map([['mtime', Buffer.from('5')]]));
    const global = header([
      [156, 'g'],
      [124, records.length.toString(8).padStart(11, '0')],
    ]);
    const [found] = read(Buffer.concat([global, records, padding(records.length), encodeEntry(plain)]));
    assert.equal(found?.entry.mtime.seconds, plain.mtime.seconds);
  });
});

suite('a sparse file', () => {
  const whole = Buffer.concat([
    Buffer.alloc(1000),
    Buffer.from('data'),
    Buffer.alloc(2000),
    Buffer.from('end'),
  ]);
  const stored = Buffer.from('dataend');
  const size: [number, string] = [124, '00000000007'];

  function pax(records: Record<string, string>): Buffer {
    const bytes = encodePax(
      new Map(Object.entries(records).map(([key, value]) => [key, Buffer.from(value)])),
    );
    return Buffer.concat([
      header([
        [156, 'x'],
        [124, bytes.length.toString(8).padStart(11, '0')],
      ]),
      bytes,
      padding(bytes.length),
    ]);
  }

  const octal = (value: number): string => value.toString(8).padStart(11, '0') + '\0';
  const list = Buffer.from('2\n1000\n4\n3004\n3\n');
  const forms: Record<string, Buffer> = {
    'of GNU, in the header': Buffer.concat([
      header([[156, 'S'], size, [386, octal(1000) + octal(4) + octal(3004) + octal(3)], [483, octal(3007)]]),
      stored,
      padding(7),
    ]),
    'of PAX 0.1': Buffer.concat([
      pax({ 'GNU.sparse.size': '3007', 'GNU.sparse.map': '1000,4,3004,3', 'GNU.sparse.name': 'real' }),
      header([size]),
      stored,
      padding(7),
    ]),
    'of PAX 1.0': Buffer.concat([
      pax({ 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.realsize': '3007' }),
      header([[124, octal(512 + 7)]]),
      list,
      Buffer.alloc(512 - list.length),
      stored,
      padding(7),
    ]),
  };
  for (const [form, bytes] of Object.entries(forms)) {
    test(`${form} is read whole, however its bytes arrive`, () => {
      for (const step of [bytes.length, 1, 500]) {
        const found = read(Buffer.concat([bytes, encodeEntry(plain)]), step);
        assert.deepEqual(
          found.map(({ content }) => content),
          [whole, Buffer.alloc(0)],
        );
      }
    });
  }

  test('with more stretches than its header holds is read', () => {
    const pieces = Array.from({ length: 30 }, (_, at) => octal(at * 10) + octal(1));
    const rest = Buffer.alloc(1024);
    rest.write(pieces.slice(4, 25).join(''), 0, 'latin1');
    rest[504] = 1;
    rest.write(pieces.slice(25).join(''), 512, 'latin1');
    const first = header([
      [156, 'S'],
      [124, octal(30)],
      [386, pieces.slice(0, 4).join('')],
      [482, '\x01'],
      [483, octal(300)],
    ]);
    const [found] = read(Buffer.concat([first, rest, Buffer.alloc(30, 'x'), padding(30)]), 100);
    assert.equal(found?.content.filter((byte) => byte !== 0).length, 30);
    assert.equal(found?.content[290], 'x'.charCodeAt(0));
  });

  test('whose parts overlap, lie outside or do not add up is refused', () => {
    for (const map of ['0,4,2,3', '3006,7', '0,7,10', '0,6', '0,x']) {
      const bytes = Buffer.concat([
        pax({ 'GNU.sparse.size': '3007', 'GNU.sparse.map': map }),
        header([size]),
        stored,
        padding(7),
      ]);
      assert.throws(() => read(bytes), InvalidArgument, map);
    }
  });
});

suite('PAX records', () => {
  test('count their own length where it grows by a digit', () => {
    for (let length = 1; length < 1100; length++) {
      const value = Buffer.alloc(length, 'v');
      const bytes = encodePax(new Map([['key', value]]));
      assert.deepEqual(decodePax(bytes), new Map([['key', [value]]]));
    }
  });

  test('that are malformed are refused', () => {
    for (const text of ['5 a=b', '6 a=b\n7 a', 'x a=b\n', '3 \n', '5 ab\n', '0 a=b\n', '-6 a=b\n']) {
      assert.throws(() => decodePax(Buffer.from(text)), InvalidArgument, text);
    }
  });

  test('hold times of any sign to the nanosecond', () => {
    for (const [text, seconds, nanos] of [
      ['0.000000001', 0, 1],
      ['-0.25', -1, 750_000_000],
      ['-1', -1, 0],
      ['1700000000.5', 1_700_000_000, 500_000_000],
    ] as const) {
      assert.deepEqual(parsePaxTime(text), { seconds, nanos });
      assert.equal(formatPaxTime({ seconds, nanos }), text);
    }
    assert.deepEqual(parsePaxTime('1.1234567899'), { seconds: 1, nanos: 123_456_789 });
  });
});
