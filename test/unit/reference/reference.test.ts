import assert from 'node:assert/strict';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite, test } from 'node:test';
import { bash } from '../../../scripts/reference/completions.ts';
import { configFile } from '../../../scripts/reference/config-page.ts';
import { flatten, readGrammar } from '../../../scripts/reference/grammar.ts';
import { manPages } from '../../../scripts/reference/man.ts';
import { commandNames } from '../../../src/cli/program.ts';
import { defaults, parseConfig } from '../../../src/config/config.ts';
import { exec } from '../../../src/sys/command.ts';

const program = readGrammar();

suite('the generated files', () => {
  test('have a man page for each command, with all of its options', () => {
    const pages = manPages(program);
    for (const name of commandNames) {
      const page = pages.get(`stasis-${name}.1`);
      assert.ok(page !== undefined, name);
      const options = flatten(program)
        .filter(({ path }) => path[0] === name)
        .flatMap((command) => command.options.flatMap(({ names }) => names));
      for (const option of options)
        assert.ok(page.includes(option.replaceAll('-', '\\-')), `${name} ${option}`);
    }
    assert.match(pages.get('stasis.1') ?? '', /\.SH "EXIT STATUS"\n\.TP\n\\fB0\\fR\nok: /);
  });

  test('have man pages of requests that man(7) knows', () => {
    const pages = manPages(program);
    for (const [name, text] of pages) {
      assert.ok(
        !/^[.'](?!\\|TH|SH|TP|PP|B\b|BR|I\b|IR|RB|RS|RE|br|nf|fi)/m.test(text),
        `${name}: unknown request`,
      );
    }
    assert.equal(pages.size, commandNames.length + 4);
  });

  test('have a configuration file that changes nothing', () => {
    assert.deepEqual(parseConfig(configFile(), 'config.toml'), defaults);
  });

  test('have a configuration file whose keys are right when they are set', () => {
    const text = configFile().replace(/^#(?=[a-z_]+ = )/gm, '');
    assert.deepEqual(parseConfig(text, 'config.toml'), defaults);
    assert.ok(text.includes('\nsharing = '));
  });
});

suite('completion in bash', () => {
  const cases: [words: string[], offered: string[]][] = [
    [['che'], ['checkpoint']],
    [
      ['config', ''],
      ['show', 'check'],
    ],
    [['config', 'sh'], ['show']],
    [['-n', 'web', 'res'], ['restore']],
    [
      ['restore', ''],
      ['web', 'db'],
    ],
    [
      ['restore', 'web', '--snapshot', ''],
      ['good', 'better'],
    ],
    [['restore', 'web', '--req'], ['--require-memory']],
    [['rm', 'web', 'b'], ['better']],
    [['rm', 'web', 'better', 'g'], ['good']],
    [['ls', '--all'], ['--all-namespaces']],
    [['checkpoint', '--name', ''], []],
    [['help', 'ins'], ['inspect']],
  ];
  for (const [words, offered] of cases) {
    test(`of \`stasis ${words.join(' ')}\``, async () => {
      const folder = await mkdtemp(join(tmpdir(), 'stasis-completion-'));
      try {
        await writeFile(join(folder, 'completion'), bash(program));
        const fake =
          '#!/bin/sh\ncase $3 in "") printf "web\\ndb\\n" ;; *) printf "$3@good\\n$3@better\\n" ;; esac\n';
        await writeFile(join(folder, 'stasis'), fake);
        await chmod(join(folder, 'stasis'), 0o755);
        const script = `set -u; . "$0"; COMP_WORDS=(stasis "$@"); COMP_CWORD=$#; _stasis; printf '%s\\n' "\${COMPREPLY[@]-}"`;
        const { stdout, stderr } = await exec('bash', ['-c', script, join(folder, 'completion'), ...words], {
          env: { PATH: `${folder}:${process.env['PATH'] ?? ''}` },
        });
        assert.equal(stderr, '');
        assert.deepEqual(
          stdout.split('\n').filter((line) => line !== ''),
          offered,
        );
      } finally {
        await rm(folder, { recursive: true });
      }
    });
  }
});
