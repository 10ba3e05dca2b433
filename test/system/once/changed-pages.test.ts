import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { after, before, suite, test } from 'node:test';
import { inside, removeAll, removeContainer, startContainer, uniqueName } from '../support/container.ts';
import { OwnDaemon } from '../support/daemon.ts';
import { datasets, importImage, must, stack, stasis, until } from '../support/stack.ts';

/**
 * A program with memory to look at. For each number that appears in /ask it changes some pages, grows, lets a child come or
 * go and writes to shared memory; for `sum` it changes nothing. Then it answers with sums over all of its memory.
 */
const program = `
$id = shmget(1, 4 << 20, 01600) // die;
$page = 4096; $pages = 4096; $buf = '';
for $p (1 .. $pages) { $buf .= pack('LL', $p, $p * 7) . ('abcdefgh' x 511) }
sub answer { open A, '>', '/answer.new'; print A $_[0]; close A; rename '/answer.new', '/answer' }
$n = 0;
while (1) {
  select undef, undef, undef, 0.02;
  open Q, '<', '/ask' or next; chomp($ask = <Q> // ''); close Q;
  next if $ask eq $last or $ask eq ''; $last = $ask;
  if ($ask =~ /^\\d/) {
    $n++;
    for $i (1 .. 100) { substr($buf, (($i * 37 + $n * 11) % $pages) * $page, 8) = pack 'LL', $n, $i }
    push @heap, join ',', map { $_ * $n } 1 .. 40000;
    shmwrite $id, "round $n", $n * $page * 3, 16;
    if ($child) { kill 9, $child; waitpid $child, 0; $child = 0 }
    else { $child = fork; exec '/bin/perl', '-e', '$mine = q(x) x (1 << 20); select undef, undef, undef, 1 while 1' if $child == 0 }
  }
  shmread $id, $shared, 0, 4 << 20;
  answer("$ask " . join ' ', $n, unpack('%32C*', $buf), unpack('%32L*', $buf), unpack('%32C*', join '', @heap), unpack('%32C*', $shared), scalar @heap, kill(0, $child || $$));
}`;

async function ask(name: string, question: string): Promise<string> {
  writeFileSync(await inside(name, '/ask'), question);
  const path = await inside(name, '/answer');
  return until(`${name} to answer ${question}`, () => {
    try {
      const [asked, ...rest] = readFileSync(path, 'latin1').split(' ');
      return asked === question ? rest.join(' ') : undefined;
    } catch {
      return undefined;
    }
  });
}

interface Taken {
  readonly writtenBytes: number;
  readonly memoryBytes: number;
}

async function take(container: string, name: string): Promise<Taken> {
  const text = await stasis('checkpoint', container, '--name', name, '--require-memory', '--json');
  return (JSON.parse(text) as { checkpoint: Taken }).checkpoint;
}

suite('a series of checkpoints of a container that changes and grows', () => {
  const [web, copy] = [uniqueName('pages'), uniqueName('pages')];
  const answers = new Map<string, string>();
  let daemon: OwnDaemon;
  before(async () => {
    await importImage();
    daemon = await OwnDaemon.take();
    // Nothing is restored from the tmpfs; and three links, so that there are some chains.
    await daemon.start((config) => `${config}\n[checkpoint]\ncache = 0\nlinks = 3\n`);
    await startContainer(web, ['/bin/perl', '-e', program]);
    await ask(web, '0');
  });
  after(async () => {
    await daemon.giveBack();
    await removeAll(copy, web);
  });

  /** Brings a checkpoint back beside the container, and looks at all of its memory. */
  async function assertMemory(name: string, paging: '--eager' | '--lazy' = '--eager'): Promise<void> {
    await stasis('restore', web, '--snapshot', name, '--as', copy, '--require-memory', paging);
    try {
      assert.equal(await ask(copy, `sum-${name}`), answers.get(name), `memory of ${name}`);
    } finally {
      await removeContainer(copy);
    }
  }

  test('writes what changed, and each of them gives back the memory of its instant', async () => {
    const share: number[] = [];
    for (let round = 1; round <= 9; round++) {
      answers.set(`c${round}`, await ask(web, String(round)));
      const { writtenBytes, memoryBytes } = await take(web, `c${round}`);
      share.push(writtenBytes / memoryBytes);
    }
    const whole = share.map((part) => part >= 1);
    assert.deepEqual(whole, [true, false, false, false, true, false, false, false, true]);
    assert.ok(
      share.every((part, index) => whole[index] === true || part < 0.4),
      share.map((part) => part.toFixed(2)).join(' '),
    );
    for (const name of answers.keys()) await assertMemory(name);
    // A page server reads through the same links.
    for (const name of ['c4', 'c8']) await assertMemory(name, '--lazy');
  });

  test('loses none of the others when one in the middle is removed', async () => {
    await stasis('rm', web, 'c2', 'c5', 'c7');
    for (const name of ['c1', 'c3', 'c4', 'c6', 'c8', 'c9']) await assertMemory(name);
  });

  test('goes on after a rewind, and after a kill of stasisd in the middle of a checkpoint', async () => {
    await stasis('restore', web, '--snapshot', 'c4', '--require-memory');
    assert.equal(await ask(web, 'rewound'), answers.get('c4'));
    for (const name of ['d1', 'd2', 'd3']) {
      answers.set(name, await ask(web, `${name.slice(1)}0`));
      await take(web, name);
    }
    for (const pause of [60, 120, 180, 240, 300]) {
      const cut = must('stasis', ['checkpoint', web, '--name', `cut-${pause}`]).catch(() => '');
      await new Promise((resolve) => setTimeout(resolve, pause));
      await daemon.kill();
      await cut;
      await daemon.start((config) => `${config}\n[checkpoint]\ncache = 0\nlinks = 3\n`);
      const name = `e${pause}`;
      answers.set(name, await ask(web, String(pause)));
      await take(web, name);
      await assertMemory(name);
    }
    for (const name of ['d1', 'd2', 'd3', 'e60', 'c4', 'c9']) await assertMemory(name);
    assert.deepEqual(
      datasets().filter((name) => name.startsWith(`${stack.root}/reading/`)),
      [],
    );
  });
});
