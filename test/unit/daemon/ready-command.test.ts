import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ReadyCommand } from '../../../src/daemon/ready-command.ts';
import { createLogger } from '../../../src/log.ts';

function setUp(t: TestContext) {
  const root = mkdtempSync(join(tmpdir(), 'stasis-ready-'));
  t.after(() => rmSync(root, { recursive: true }));
  const lines: string[] = [];
  const log = createLogger(
    (line) => lines.push(line),
    () => 'info',
  );
  return { root, folder: join(root, 'ready'), log, lines };
}

test('a process is ready, is followed by another one when it is killed, and is gone with its folder after a stop', async (t) => {
  const { folder, log, lines } = setUp(t);
  // Of a process that was killed with its stasisd: no process has this start time.
  mkdirSync(join(folder, `source.${process.pid}.1.7`), { recursive: true });
  const kept = new ReadyCommand(join(import.meta.dirname, '../../../src/cli/ready/main.ts'), folder, log);
  const pid = async (not: number): Promise<number> => {
    for (;;) {
      const [name = ''] = readdirSync(folder).filter((one) => !one.startsWith('.'));
      const found = Number(name.split('.')[1] ?? not);
      if (found !== not) return found;
      await sleep(10);
    }
  };
  const first = await pid(0);
  assert.notEqual(first, process.pid);
  assert.equal(readFileSync(`/proc/${first}/cmdline`, 'utf8').split('\0')[2], folder);
  process.kill(first, 'SIGKILL');
  const second = await pid(first);
  assert.equal(readdirSync(folder).length, 1, 'nothing is left of the first');
  await kept.stop();
  assert.equal(existsSync(`/proc/${second}`), false);
  assert.equal(existsSync(folder), false);
  assert.deepEqual(
    lines.map((line) => line.replace(/^time=\S+ /, '')),
    ['level=warn msg="the ready command line ended" end=SIGKILL\n'],
  );
});

test('one that cannot start is tried again ever more seldom, and said', async (t) => {
  const { root, folder, log, lines } = setUp(t);
  const program = join(root, 'program.cjs');
  writeFileSync(
    program,
    `require('node:fs').appendFileSync(${JSON.stringify(join(root, 'runs'))}, 'run\\n'); process.exit(3);`,
  );
  const kept = new ReadyCommand(program, folder, log);
  await sleep(1500);
  await kept.stop();
  const runs = readFileSync(join(root, 'runs'), 'utf8').length / 4;
  assert.ok(runs >= 2 && runs <= 5, `${runs} runs`);
  assert.match(lines[0] ?? '', /the ready command line ended" end="exit code 3"/);
  assert.equal(existsSync(folder), false);
});
