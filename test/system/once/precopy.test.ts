// On a kernel that tracks changed pages (the virtual machine's, a stock Debian) the real thing; on one that does not, that it is
// refused.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import {
  inside,
  progress,
  removeAll,
  startContainer,
  startWriter,
  uniqueName,
} from '../support/container.ts';
import { filled } from '../support/filling.ts';
import { ctr, datasets, importImage, readIfThere, refused, stack, stasis, until } from '../support/stack.ts';

const PAGE = 4096;
/** Large enough that one huge page, which counts as changed when any of its pages has, is a small part of it. */
const PAGES = 12 * 256;

/**
 * Memory of which each page tells its number and how often it was written; a few of them, side by side, are written all the
 * time, each being looked at first, and the disk has a line for each step. With a file /look all pages are looked at once, which /looked tells.
 */
const program = `
use strict; use warnings;
my $size = ${PAGES} * ${PAGE};
my $area = "\\0" x $size;
my @versions = (0) x ${PAGES};
substr($area, $_ * ${PAGE}, 16) = pack('QQ', $_ + 1, 0) for 0 .. ${PAGES} - 1;
sub put { my ($name, $text) = @_; open(my $file, '>', $name) or die; print $file $text; close $file; }
sub look {
  my ($page) = @_;
  my ($number, $version) = unpack('QQ', substr($area, $page * ${PAGE}, 16));
  return if $number == $page + 1 && $version == $versions[$page];
  put('/torn', "page $page is $number in version $version, not $versions[$page]");
  exit 1;
}
open(my $appended, '>>', '/appended') or die;
$appended->autoflush(1);
for (my $count = 0; ; $count++) {
  if (-s $appended != 9 * $count) { put('/torn', "disk and memory differ at $count"); exit 1; }
  for (1 .. 20) {
    my $page = int(rand(100));
    look($page);
    substr($area, $page * ${PAGE} + 8, 8) = pack('Q', ++$versions[$page]);
  }
  syswrite($appended, sprintf("%08d\\n", $count));
  if (-e '/look') { look($_) for 0 .. ${PAGES} - 1; unlink '/look'; put('/looked', 'all'); }
  select(undef, undef, undef, 0.002);
}`;

const tracks =
  spawnSync(process.env['STASIS_CRIU'] ?? 'criu', ['check', '--feature', 'mem_dirty_track']).status === 0;

suite('memory that is copied while the container runs', () => {
  const [web, other] = [uniqueName('precopy'), uniqueName('small')];
  before(async () => {
    await importImage();
    if (tracks) await startContainer(web, ['/bin/perl', '-e', program]);
    else await startWriter(web);
    await startWriter(other);
    await progress(web, 3);
  });
  after(() => removeAll(web, other));

  const snapshots = (): string[] => datasets().filter((name) => name.includes('@'));
  /** All that a checkpoint may leave on the tmpfs beside the images that are kept for the next restore. */
  const precopies = (): string[] =>
    readdirSync(join(stack.state, 'run/staging'), { recursive: true, encoding: 'utf8' }).filter((path) =>
      /\/(pre-\d+|parent)$/.test(path),
    );

  if (!tracks) {
    test('a kernel that does not track changes refuses it and says what is missing, and nothing is changed', async () => {
      const was = datasets();
      for (const members of [[web], [web, other]]) {
        const said = await refused(5, 'checkpoint', ...members, '--precopy');
        assert.match(said, /criu check --feature mem_dirty_track/);
        assert.match(said, /leave out --precopy, or boot a kernel .* CONFIG_MEM_SOFT_DIRTY/);
      }
      assert.deepEqual(datasets(), was);
      assert.match(await stasis('info'), /precopy +not possible: .*CONFIG_MEM_SOFT_DIRTY/);
      await progress(web, 3);
    });
    return;
  }

  /** Every page is what the container's own memory says that it is, and its disk as well. */
  async function lookAtAll(): Promise<void> {
    writeFileSync(await inside(web, '/look'), '');
    const looked = await inside(web, '/looked');
    await until('all pages to be looked at', async () => {
      await progress(web, 1);
      return readIfThere(looked);
    });
    await ctr('tasks', 'exec', '--exec-id', uniqueName(), web, '/bin/rm', '/looked');
  }

  /** What stasisd noted of the latest: pages of each round, bytes of the image, and of what was dumped of it. */
  function noted(): { rounds: number[]; image: number; dumped: number } {
    const log = readFileSync(join(stack.state, 'log/stasisd.log'), 'utf8');
    const [line] = log.match(new RegExp(`.*copied beforehand.* id=${web} .*`, 'g'))?.slice(-1) ?? [];
    const [, pages = '', image, dumped] =
      /pages="?([\d, ]+?)"? image=(\d+) dumped=(\d+)/.exec(line ?? '') ?? [];
    return { rounds: pages.split(', ').map(Number), image: Number(image), dumped: Number(dumped) };
  }

  test('it stands still for what changed last alone, and the checkpoint is a whole one, of one instant', async () => {
    await stasis('checkpoint', web, '--precopy', '--name', 'a', '--require-memory');
    const first = noted();
    assert.ok((first.rounds[0] ?? 0) >= PAGES, `the first round copies all: ${first.rounds.join(', ')}`);
    assert.ok(first.image >= PAGES * PAGE, `the image is whole: ${first.image}`);
    assert.ok(first.dumped < first.image / 4, `${first.dumped} bytes of ${first.image} were dumped`);
    assert.deepEqual(precopies(), []);
    const args = ['--precopy-rounds', '3', '--precopy-goal', '0', '--require-memory'];
    await stasis('checkpoint', web, other, ...args, '--name', 'b');
    const { rounds } = noted();
    assert.ok(rounds.length >= 2 && rounds.length <= 3, `rounds copied ${rounds.join(', ')} pages`);
    await progress(web, 3);
    await stasis('restore', web, '--require-memory', '--lazy');
    await lookAtAll();
    await filled(web);
    await progress(other, 3);
    assert.deepEqual(precopies(), []);
  });

  test('a caller who gives up meanwhile leaves nothing, and the container runs on', async () => {
    let was = snapshots();
    let code: unknown = 0;
    // On a busy machine a checkpoint can be whole before the signal is heard: then nobody gave up, and it counts for nothing.
    for (let tries = 0; code === 0 && tries < 5; tries++) {
      was = snapshots();
      const args = ['--precopy-rounds', '16', '--precopy-goal', '0', '--progress'];
      const taking = spawn('stasis', ['checkpoint', web, ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
      const given = once(taking, 'exit');
      for await (const text of taking.stderr as AsyncIterable<Buffer>)
        if (text.includes('copying memory')) taking.kill('SIGINT');
      [code] = (await given) as [number | null];
    }
    assert.equal(code, 9);
    assert.deepEqual(snapshots(), was);
    assert.deepEqual(precopies(), []);
    await lookAtAll();
  });
});
