// The commands of the tour and the guides, run as they stand there: every block ```console is a session.
import assert from 'node:assert/strict';
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { exec } from '../../../src/sys/command.ts';
import { uniqueName } from '../support/container.ts';
import { attempt, must, stack } from '../support/stack.ts';

const pages = ['docs/tour.md', 'docs/guides/zfs.md', 'docs/guides/containerd.md'];
/** Of this run alone: the pages' names are common ones, and cgroups are named by namespace and container. */
const namespace = uniqueName('docs');
const MARK = '\u0001';

interface Command {
  readonly line: string;
  readonly expected: readonly string[];
}

/** The commands of a page, each with the output that stands below it. */
function commandsOf(page: string): Command[] {
  const text = readFileSync(join(stack.project, page), 'utf8');
  return [...text.matchAll(/^```console\n(.*?)^```$/gms)].flatMap(([, block = '']) => {
    const commands: { line: string; expected: string[] }[] = [];
    for (const line of block.trimEnd().split('\n')) {
      if (line.startsWith('$ ')) commands.push({ line: line.slice(2), expected: [] });
      else commands.at(-1)?.expected.push(line);
    }
    return commands;
  });
}

/** Of a fast machine's first second it is `now`. */
const anAge = /\d+ (?:s|min|h|d) ago/;
const AGE = '\u0002';

/** A line of a page as a pattern: numbers, units and ages differ from run to run, columns have other widths, `…` is anything. */
function patternOf(line: string): RegExp {
  const words = line.trim().replace(anAge, AGE).split(/\s+/);
  const parts = words.map((word) =>
    word
      .replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
      .replace(/\d+(\\\.\d+)?/g, '\\d+(?:\\.\\d+)?')
      .replace(/^(ms|s|min|B|KiB|MiB|GiB)(,?)$/, '(?:ns|µs|ms|s|min|B|KiB|MiB|GiB)$2')
      .replaceAll('…', '.*')
      .replace(AGE, `(?:now|${anAge.source})`),
  );
  return new RegExp(`^\\s*${parts.join('\\s+')}\\s*$`);
}

/** As the stack calls what the pages call `tank` and `default`. */
function here(text: string): string {
  return text
    .replaceAll('tank/stasis/containers/default', `${stack.root}/containers/${namespace}`)
    .replaceAll('tank/stasis', stack.root);
}

suite('the pages', () => {
  before(async () => {
    const file = join(stack.state, 'data/tmp/docs-image.tar');
    await must(join(stack.project, 'scripts/lib/image'), [file]);
    await must('ctr', ['-n', namespace, 'images', 'import', '--snapshotter', 'stasis', file]);
    rmSync(file);
  });

  after(async () => {
    await must('ctr', ['-n', namespace, 'images', 'rm', 'docker.io/stasis/busybox:latest']);
    await attempt('ctr', ['namespaces', 'rm', namespace]);
  });

  for (const page of pages) {
    test(`${page} shows commands that work, and what they print`, async () => {
      const commands = commandsOf(page);
      assert.ok(commands.length > 3, `${commands.length} commands`);
      // One shell for all, as a reader has one.
      const script = commands.map(({ line }) => `${here(line)}\nprintf '${MARK}%s\\n' $?\n`).join('');
      const env = { ...(process.env as Record<string, string>), CONTAINERD_NAMESPACE: namespace };
      const { stdout } = await exec('bash', ['-c', `exec 2>&1\n${script}`], { timeoutMs: 300_000, env });
      const outputs = stdout.split(MARK);
      for (const [index, { line, expected }] of commands.entries()) {
        const output = (outputs[index] ?? '').replace(/^\d+\n/, '');
        const status = /^\d+/.exec(outputs[index + 1] ?? '')?.[0];
        assert.equal(status, '0', `$ ${line}\n${output}`);
        // Each line once, in any order: containerd lists tasks as they come.
        const rest = output.split('\n');
        for (const wanted of expected) {
          const pattern = patternOf(here(wanted));
          const at = rest.findIndex((text) => pattern.test(text));
          assert.ok(
            at >= 0,
            `$ ${line}\nprinted:\n${output}\nwithout a line like:\n${wanted}\n(${String(pattern)})`,
          );
          rest.splice(at, 1);
        }
      }
    });
  }
});
