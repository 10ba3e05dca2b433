import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import {
  checkpointsOf,
  inside,
  progress,
  removeAll,
  startContainer,
  startWriter,
  statusOf,
  uniqueName,
} from '../support/container.ts';
import { rounds } from '../support/slowness.ts';
import { attempt, datasets, importImage, refused, stack, stasis, until } from '../support/stack.ts';

/**
 * A ring: `/shared/token` says whose turn it is and with which number. A member takes the number that follows its own,
 * writes it to its own disk and passes it on; the first adds one. So at any instant the first has at most one more than the
 * last, and nobody has less than who comes after. In `/told` a member says its number, from memory, and whether it has still
 * to pass it on. While there is `/shared/stop` nobody takes or passes anything.
 */
const member = `
use strict;
my ($me, $count) = @ARGV;
my ($n, $life) = (0, 0);
sub own { my ($file, $text) = @_; sysseek($file, 0, 0); syswrite($file, sprintf("%-40s", $text)) }
open(my $disk, '>', '/number') or die;
open(my $told, '>', '/told') or die;
open(my $token, '+<', '/shared/token') or die; # never another file: it must be there at a restore as it was
sub tell_all { own($told, "$n $_[0] " . ++$life); select(undef, undef, undef, 0.0005) }
own($disk, $n);
while (1) {
  while (1) {
    tell_all(0);
    next if -e '/shared/stop';
    sysseek($token, 0, 0);
    sysread($token, my $text, 40) == 40 or next;
    my ($turn, $number) = split / /, $text;
    if ($turn == $me && $number == $n + 1) { $n = $number; last }
  }
  own($disk, $n);
  do { tell_all(1) } while -e '/shared/stop';
  my $next = ($me + 1) % $count;
  own($token, $next . ' ' . ($next == 0 ? $n + 1 : $n));
}
`;

suite('several containers at one instant', () => {
  const shared = mkdtempSync(join(stack.state, 'data/tmp/ring-'));
  const stop = join(shared, 'stop');
  const token = join(shared, 'token');
  const ring = ['a', 'b', 'c'].map((letter) => uniqueName(`ring-${letter}`)).sort();
  before(async () => {
    await importImage();
    writeFileSync(token, '0 1'.padEnd(40));
    const mount = ['--mount', `type=bind,src=${shared},dst=/shared,options=rbind:rw`];
    for (const [index, name] of ring.entries()) {
      const label = ['--label', `test.ring=${ring[0] ?? ''}`];
      const args = ['/bin/perl', '-e', member, String(index), String(ring.length)];
      await startContainer(name, args, [...mount, ...label]);
    }
    await turns(5);
  });
  after(async () => {
    await removeAll(...ring);
    rmSync(shared, { recursive: true });
  });

  /** What a file of each member says, by its order in the ring. */
  async function texts(file: string): Promise<string[]> {
    return Promise.all(ring.map(async (name) => readFileSync(await inside(name, file), 'utf8')));
  }

  async function numbers(file: string): Promise<number[]> {
    return (await texts(file)).map((text) => Number(text.split(' ')[0]));
  }

  /** Waits until the token has gone round so often. */
  async function turns(count: number): Promise<void> {
    const number = (): number => Number(readFileSync(token, 'utf8').split(' ')[1]);
    const first = number();
    await until(`the token to go round ${count} times`, () => (number() >= first + count ? true : undefined));
  }

  /** No member is ahead of another by more than the ring allows. */
  function assertOneInstant(found: readonly number[], what: string): void {
    const [first = 0] = found;
    const last = found.at(-1) ?? 0;
    const said = `${what}: ${found.join(' ')}`;
    for (const [index, number] of found.entries()) {
      assert.ok(
        index === 0 || number <= (found[index - 1] ?? 0),
        `${said}: each has at most what came to it`,
      );
    }
    assert.ok(first - last <= 1, `${said}: the first waits for the last`);
  }

  test('memory and disk of all members agree with the ring, in each of many sets', async () => {
    for (let round = 0; round < rounds(3); round++) {
      await turns(3);
      const set = `ring-${round}`;
      const json = await stasis('checkpoint', ...ring, '--name', set, '--require-memory', '--json');
      const document = JSON.parse(json) as {
        set: { name: string; id: string };
        checkpoints: { container: string; name: string; memory: string; set: string }[];
      };
      assert.equal(document.set.name, set);
      assert.deepEqual(
        document.checkpoints.map(({ container, name, memory, set: id }) => [container, name, memory, id]),
        ring.map((name) => [name, set, 'image', document.set.id]),
      );
      await turns(3);
      writeFileSync(stop, '');
      const said = await stasis('restore', '--set', set, '--require-memory');
      assert.match(said, new RegExp(`set ${set}: 3 restored`));
      const before = await texts('/told');
      await until('each member to say its number anew', async () =>
        (await texts('/told')).every((text, index) => text !== before[index]) ? true : undefined,
      );
      const disks = await numbers('/number');
      const memory = await numbers('/told');
      assertOneInstant(disks, `disks of ${set}`);
      assertOneInstant(memory, `memory of ${set}`);
      assert.deepEqual(disks, memory);
      // The token is of a later time. Who held it passes it on; where nobody did, it is put where it stood.
      if ((await texts('/told')).every((text) => text.split(' ')[1] === '0')) {
        const [first = 0] = memory;
        const next = memory.findIndex((number) => number < first);
        const text = next < 0 ? `0 ${first + 1}` : `${next} ${first}`;
        writeFileSync(token, text.padEnd(40), { flag: 'r+' });
      }
      rmSync(stop);
    }
    await turns(3);
  });

  test('a label names the members, and ls and inspect tell of the set', async () => {
    await stasis(
      'checkpoint',
      '--label',
      `test.ring=${ring[0] ?? ''}`,
      '--name',
      'labelled',
      '--require-memory',
    );
    for (const name of ring) {
      assert.ok((await checkpointsOf(name)).includes('labelled'));
      assert.match(await stasis('inspect', name, 'labelled'), /^set: +\S+$/m);
    }
    assert.match(await stasis('ls', ring[0] ?? ''), /SET|set \S+/);
    await refused(3, 'checkpoint', '--label', 'test.ring=none');
    await refused(2, 'checkpoint', '--label', '=x');
    await refused(2, 'checkpoint');
    await refused(2, 'restore');
  });

  test('a name that one member has is refused for all, and nothing is left', async () => {
    const [first = '', second = ''] = ring;
    await stasis('checkpoint', first, '--name', 'alone');
    const before = datasets();
    assert.match(await refused(4, 'checkpoint', ...ring, '--name', 'alone'), /alone/);
    assert.match(await refused(4, 'checkpoint', second, uniqueName('x'), '--name', 'labelled'), /labelled/);
    assert.match(await refused(3, 'checkpoint', second, uniqueName('nobody')), /nobody/);
    assert.deepEqual(datasets(), before);
    await turns(3);
  });

  test('restoring several tells of each, goes on after a failure, and ends with its exit code', async () => {
    const [first = '', second = ''] = ring;
    const other = uniqueName('other');
    await startWriter(other);
    try {
      await stasis('checkpoint', second, '--name', 'partial');
      const result = await attempt('stasis', ['restore', other, second, '--json']);
      assert.equal(result.exitCode, 3, result.stderr);
      const document = JSON.parse(result.stdout) as {
        restored: { container: string }[];
        failed: { container: string; error: { reason: string } }[];
      };
      assert.deepEqual(
        document.restored.map(({ container }) => container),
        [second],
      );
      assert.deepEqual(
        document.failed.map(({ container, error }) => [container, error.reason]),
        [[other, 'no-checkpoints']],
      );
      await progress(other, 2);
      await refused(2, 'restore', '--set', 'labelled', other);
      assert.match(await refused(3, 'restore', '--set', 'nothing'), /labelled/);
      assert.equal(await statusOf(first), 'RUNNING');
    } finally {
      await removeAll(other);
    }
  });
});

suite('a set with a container that cannot be dumped', () => {
  const [good, bad] = [uniqueName('good'), uniqueName('bad')];
  const undumpable =
    'my $n = 0; my $p = "\\0" x 120; my $fd = syscall(425, 4, $p); die "io_uring_setup: $!" if $fd < 0; ' +
    'open(my $f, ">", "/appended") or die; while (1) { syswrite($f, "123456789"); select(undef, undef, undef, 0.02) }';
  before(async () => {
    await importImage();
    await startWriter(good);
    await startContainer(bad, ['/bin/perl', '-e', undumpable]);
    await progress(bad, 2);
  });
  after(() => removeAll(good, bad));

  test('is not taken where memory is required: nothing of it stays, and all run on', async () => {
    const before = datasets().filter((name) => name.includes('@'));
    assert.match(
      await refused(5, 'checkpoint', good, bad, '--require-memory', '--name', 'never'),
      new RegExp(bad),
    );
    assert.deepEqual(
      datasets().filter((name) => name.includes('@')),
      before,
    );
    await progress(good, 2);
    await progress(bad, 2);
  });

  test('keeps that one disk only otherwise, with a warning that names it', async () => {
    const result = await attempt('stasis', ['checkpoint', good, bad, '--name', 'mixed', '--json']);
    assert.equal(result.exitCode, 0, result.stderr);
    assert.match(result.stderr, new RegExp(`warning: ${bad}: memory was not dumped`));
    const { checkpoints } = JSON.parse(result.stdout) as {
      checkpoints: { container: string; memory: string }[];
    };
    assert.deepEqual(Object.fromEntries(checkpoints.map(({ container, memory }) => [container, memory])), {
      [good]: 'image',
      [bad]: 'none',
    });
    await progress(good, 2);
    await progress(bad, 2);
  });

  test('is refused, and leaves nothing, where a member is on another snapshotter or does not run', async () => {
    const elsewhere = uniqueName('elsewhere');
    await startWriter(elsewhere, { flags: ['--snapshotter', 'overlayfs'] });
    try {
      const before = datasets();
      assert.match(await refused(5, 'checkpoint', good, elsewhere), new RegExp(`${elsewhere}.*overlayfs`));
      await attempt('ctr', ['tasks', 'kill', '-s', 'SIGKILL', elsewhere]);
      await until(`${elsewhere} to end`, async () =>
        (await statusOf(elsewhere)) === 'STOPPED' ? true : undefined,
      );
      assert.match(await refused(5, 'checkpoint', good, elsewhere), new RegExp(`${elsewhere}.*not running`));
      assert.deepEqual(datasets(), before);
    } finally {
      await removeAll(elsewhere);
    }
  });

  test('takes a container under another runtime at the same instant, disk only', async () => {
    const foreign = uniqueName('foreign');
    await startWriter(foreign, { flags: ['--runtime', 'io.containerd.runc.v2'] });
    try {
      const result = await attempt('stasis', ['checkpoint', good, foreign, '--name', 'both']);
      assert.equal(result.exitCode, 0, result.stderr);
      assert.match(result.stderr, new RegExp(`${foreign}: memory was not dumped`));
      await progress(foreign, 2);
      assert.equal(await statusOf(foreign), 'RUNNING');
    } finally {
      await removeAll(foreign);
    }
  });

  test('with --exit all are ended when it is safe, and all come back', async () => {
    await stasis('checkpoint', good, bad, '--name', 'last', '--exit');
    assert.equal(await statusOf(good), 'STOPPED');
    assert.equal(await statusOf(bad), 'STOPPED');
    await stasis('restore', '--set', 'last');
    await progress(good, 2);
    await progress(bad, 2);
  });
});
