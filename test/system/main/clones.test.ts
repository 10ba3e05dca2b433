import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { inside, removeAll, removeContainer, uniqueName } from '../support/container.ts';
import { OwnDaemon } from '../support/daemon.ts';
import { startPython } from '../support/debian.ts';
import { attempt, ctr, datasets, refused, stack, stasis, until } from '../support/stack.ts';

/**
 * Draws again and again by every road to the kernel's random numbers: its system call, the C library (which has state of
 * its own in the process, vgetrandom), Python's os.urandom and uuid4.
 */
const drawing = `
import uuid
def draw():
    buffer = ctypes.create_string_buffer(16)
    assert libc.getrandom(buffer, 16, 0) == 16
    return f'{os.urandom(16).hex()} {uuid.uuid4().hex} {buffer.raw.hex()}'
def run():
    with open('/drawn', 'w', buffering=1) as drawn:
        while True:
            drawn.write(draw() + '\\n')
            time.sleep(0.005)
threading.Thread(target=run, daemon=True).start()`;

async function drawn(name: string): Promise<string[]> {
  const lines = readFileSync(await inside(name, '/drawn'), 'utf8').split('\n');
  return lines.slice(0, -1); // the last may be half written
}

suite('clones', () => {
  const source = uniqueName('random');
  const clones = [`${source}-1`, `${source}-2`];
  const late = `${source}-late`;
  after(() => removeAll(...clones, late, source));

  test('draw other random numbers than their source and each other, from the first one on', async () => {
    await startPython(source, drawing);
    await until('some numbers', async () => ((await drawn(source)).length > 20 ? true : undefined));
    await stasis('checkpoint', source, '--name', 'c', '--require-memory');
    await stasis('clone', source, '--from', 'c', '--count', '2');
    const before = new Set<string>();
    const since = new Map<string, string>();
    const lists = await Promise.all(
      [source, ...clones].map((name) =>
        until('numbers after the checkpoint', async () => {
          const lines = await drawn(name);
          return lines.length > 200 ? lines : undefined;
        }),
      ),
    );
    // What all three have in common was drawn before the instant.
    const [first = [], second = [], third = []] = lists;
    let common = 0;
    while (first[common] === second[common] && second[common] === third[common]) {
      for (const value of (first[common] ?? '').split(' ')) before.add(value);
      common++;
    }
    assert.ok(common > 20 && common < 200, `${common} draws are common`);
    lists.forEach((lines, index) => {
      for (const value of lines.slice(common).flatMap((line) => line.split(' '))) {
        assert.ok(!before.has(value), `${value} was drawn before the checkpoint`);
        const other = since.get(value);
        assert.equal(other, undefined, `${value} was drawn by ${other} and ${[source, ...clones][index]}`);
        since.set(value, [source, ...clones][index] ?? '');
      }
    });
  });

  test('whose name is taken are refused as existing, before anything is made, and so is the later of two', async () => {
    const before = datasets();
    const taken = clones[0] ?? '';
    // Without --from a checkpoint would be taken first.
    assert.match(await refused(4, 'clone', source, '--name', taken), /exists already/);
    assert.deepEqual(datasets(), before);
    const both = await Promise.all(
      [1, 2].map(() => attempt('stasis', ['clone', source, '--from', 'c', '--name', late])),
    );
    assert.deepEqual(both.map(({ exitCode }) => exitCode).toSorted(), [0, 4]);
    assert.match(both.map(({ stderr }) => stderr).join(''), new RegExp(`container ${late} exists already`));
    await removeContainer(late);
  });

  test('and exec in them has their clock, not that of the host', async () => {
    const script = 'import time; print(time.monotonic())';
    const clock = async (name: string): Promise<number> => {
      const said = await ctr('tasks', 'exec', '--exec-id', 'clock', name, '/usr/bin/python3', '-c', script);
      return Number(said);
    };
    await sleep(5000);
    await stasis('clone', source, '--from', 'c', '--name', late);
    const offsets = readFileSync(await inside(late, '/proc/1/timens_offsets'), 'utf8');
    const [, seconds, nanoseconds] = /^monotonic\s+(-?\d+)\s+(\d+)/m.exec(offsets) ?? [];
    const behind = -(Number(seconds) + Number(nanoseconds) / 1e9);
    assert.ok(behind >= 5, `the clone's clock is ${behind} s behind`);
    // In this order, so that the time between the two makes the difference larger, never smaller.
    const ofClone = await clock(late);
    const difference = (await clock(source)) - ofClone;
    assert.ok(difference > behind - 0.1, `for who joins it is ${difference} s behind, not ${behind}`);
  });
});

suite('a CRIU that copies the state of random numbers', () => {
  const source = uniqueName('old-criu');
  const folder = mkdtempSync(join(stack.state, 'data/tmp/old-criu-'));
  let daemon: OwnDaemon | undefined;
  after(async () => {
    await daemon?.giveBack();
    await removeAll(`${source}-copy`, source);
    rmSync(folder, { recursive: true });
  });

  test('makes no clones, and doctor says so; one copy comes back', async () => {
    await startPython(source, 'pass');
    const criu = join(folder, 'criu');
    const real = process.env['STASIS_CRIU'] ?? '';
    writeFileSync(
      criu,
      `#!/bin/sh\nif [ "$1" = --version ]; then echo 'Version: 4.1.1'; else exec '${real}' "$@"; fi\n`,
    );
    chmodSync(criu, 0o755);
    daemon = await OwnDaemon.take();
    await daemon.start((config) => {
      assert.match(config, /^criu = /m);
      return config.replace(/^criu = .*$/m, `criu = "${criu}"`);
    });
    await stasis('checkpoint', source, '--name', 'c', '--require-memory');
    const said = await refused(5, 'clone', source, '--from', 'c');
    assert.match(said, /repeat its random numbers: CRIU 4\.1\.1/);
    assert.match(said, /install CRIU 4\.2 or newer/);
    const doctor = await attempt('stasis', ['doctor', '--json']);
    assert.match(doctor.stdout, /"criu-random"/);
    await stasis('restore', source, '--snapshot', 'c', '--as', `${source}-copy`, '--require-memory');
  });
});
