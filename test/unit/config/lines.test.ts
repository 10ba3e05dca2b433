import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { parse } from 'smol-toml';
import { findLines } from '../../../src/config/lines.ts';

/** The lines by dotted path; the text has to be TOML. */
function lines(...text: string[]): Record<string, number> {
  const document = text.join('\n');
  parse(document);
  return Object.fromEntries(
    [...findLines(document)].map(([path, line]) => [path.replaceAll('\0', '.'), line]),
  );
}

suite('the lines of a configuration', () => {
  test('are those of tables and keys', () => {
    assert.deepEqual(
      lines('# x = 1', '[zfs]', '', 'root = "a" # zpool_path = 2', '[ shim ]', 'sharing = "pod"'),
      {
        zfs: 2,
        'zfs.root': 4,
        shim: 5,
        'shim.sharing': 6,
      },
    );
  });

  test('are found for dotted, quoted and inline keys', () => {
    assert.deepEqual(lines('zfs.root = "x"', '"shim" . \'sharing\' = "pod"', 'log = { level = "info" }'), {
      zfs: 1,
      'zfs.root': 1,
      shim: 2,
      'shim.sharing': 2,
      log: 3,
      'log.level': 3,
    });
  });

  test('are not led astray by what strings hold', () => {
    const found = lines(
      "a = '''",
      'b = 1',
      "c = ''''",
      'd = """',
      'e = "\\""',
      '[f]',
      '"""',
      'g = "h = \\" #"',
      "i = '\\'",
      'j = 1',
    );
    assert.deepEqual(found, { a: 1, d: 4, g: 8, i: 9, j: 10 });
  });

  test('are right after lists over many lines', () => {
    assert.deepEqual(
      lines('a = [', '  # ]', '  { b = 1 }, [ "]" ],', '  2024-01-01 10:00:00,', ']', 'c = 1'),
      {
        a: 1,
        c: 6,
      },
    );
  });

  test('count each line once with either kind of line end', () => {
    assert.deepEqual(lines('\uFEFFa = 1\r', '\r', 'b = 2\r', ''), { a: 1, b: 3 });
  });

  test('of a table that is there several times are those of the first', () => {
    assert.deepEqual(lines('[[a]]', 'b = 1', '[[a]]', 'b = 2'), { a: 1, 'a.b': 2 });
  });

  test('end with the text, whatever it is', () => {
    for (const text of ['a = "', 'a = [', '[', '"', 'a = {', '= =', 'a = """x', '\u0000', '[a', 'a.'])
      findLines(text);
  });
});
