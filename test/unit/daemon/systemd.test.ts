import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite, test, type TestContext } from 'node:test';
import { journalLine, logsToJournal, Systemd } from '../../../src/daemon/systemd.ts';
import { createLogger } from '../../../src/log.ts';

/** A datagram socket, and what came in on it: Node has none itself, so perl holds it. */
async function receiver(t: TestContext, name: (folder: string) => string) {
  const folder = await mkdtemp(join(tmpdir(), 'stasis-notify-'));
  const path = name(folder);
  const child = spawn('perl', [
    '-MSocket',
    '-e',
    `$| = 1; my $path = $ARGV[0]; $path =~ s/^@/\\0/;
     socket(my $s, AF_UNIX, SOCK_DGRAM, 0) or die; bind($s, pack_sockaddr_un($path)) or die; print "bound\\0";
     while (defined(recv($s, my $data, 4096, 0))) { print $data, "\\0"; }`,
    path,
  ]);
  t.after(async () => {
    child.kill();
    await rm(folder, { recursive: true });
  });
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (data: string) => (text += data));
  const messages = async (count: number): Promise<string[]> => {
    while (text.split('\0').length <= count + 1) await once(child.stdout, 'data');
    return text.split('\0').slice(1, -1);
  };
  await messages(0);
  return { path, messages };
}

const quiet = (why: string): never => {
  throw new Error(why);
};

suite('what systemd is told', () => {
  for (const [kind, name] of [
    ['a path', (folder: string) => join(folder, 'notify')],
    ['an abstract name', () => `@stasis-notify-${process.pid}`],
  ] as const) {
    test(`arrives at ${kind}`, async (t) => {
      const { path, messages } = await receiver(t, name);
      const env: NodeJS.ProcessEnv = { NOTIFY_SOCKET: path };
      const systemd = new Systemd(env, quiet);
      systemd.ready('serving tank/stasis\nREADY=0');
      systemd.reloading();
      systemd.stopping();
      const [ready, reloading, stopping] = await messages(3);
      assert.equal(
        ready,
        'READY=1\nSTATUS=serving tank/stasis READY=0',
        'a status cannot add words of its own',
      );
      assert.match(reloading ?? '', /^RELOADING=1\nMONOTONIC_USEC=\d+$/);
      assert.equal(stopping, 'STOPPING=1');
      assert.deepEqual(env, {}, 'the programs that we start are not to speak for us');
    });
  }

  test('includes a ping three times within the watchdog time', async (t) => {
    const { path, messages } = await receiver(t, (folder) => join(folder, 'notify'));
    const systemd = new Systemd(
      { NOTIFY_SOCKET: path, WATCHDOG_USEC: '60000', WATCHDOG_PID: String(process.pid) },
      quiet,
    );
    systemd.ready('x');
    assert.deepEqual((await messages(4)).slice(1, 4), ['WATCHDOG=1', 'WATCHDOG=1', 'WATCHDOG=1']);
    systemd.stopping();
  });

  test('includes no ping where the watchdog is for another process', async (t) => {
    const { path, messages } = await receiver(t, (folder) => join(folder, 'notify'));
    const systemd = new Systemd({ NOTIFY_SOCKET: path, WATCHDOG_USEC: '1000', WATCHDOG_PID: '1' }, quiet);
    systemd.ready('x');
    await new Promise((resolve) => setTimeout(resolve, 50));
    systemd.stopping();
    assert.deepEqual(await messages(2), ['READY=1\nSTATUS=x', 'STOPPING=1']);
  });

  test('is nothing without systemd, and a complaint, once, where it cannot be reached', () => {
    new Systemd({}, quiet).ready('x');
    const complaints: string[] = [];
    const systemd = new Systemd({ NOTIFY_SOCKET: '/nonexistent/notify' }, (why) => complaints.push(why));
    systemd.ready('x');
    systemd.stopping();
    assert.deepEqual(complaints, ['sendto /nonexistent/notify: ENOENT']);
    new Systemd({ NOTIFY_SOCKET: `/${'x'.repeat(200)}` }, (why) => complaints.push(why)).ready('x');
    assert.match(complaints[1] ?? '', /no socket can be named/);
  });
});

suite('the journal', () => {
  const stat = (() => ({ dev: 8, ino: 42 })) as unknown as NonNullable<Parameters<typeof logsToJournal>[1]>;

  test('is where logs go only if standard error is the stream that systemd made', () => {
    assert.equal(logsToJournal({ JOURNAL_STREAM: '8:42' }, stat), true);
    assert.equal(logsToJournal({ JOURNAL_STREAM: '8:43' }, stat), false);
    assert.equal(logsToJournal({ JOURNAL_STREAM: '8' }, stat), false);
    assert.equal(logsToJournal({}, stat), false);
  });

  test('gets each line with its priority and without a second time', () => {
    const lines: string[] = [];
    const log = createLogger((line, level) => lines.push(journalLine(line, level)), 'trace');
    for (const level of ['error', 'warn', 'info', 'debug', 'trace'] as const)
      log[level]('a b', { dataset: 'tank' });
    const rest = 'msg="a b" dataset=tank\n';
    assert.deepEqual(lines, [`<3>${rest}`, `<4>${rest}`, `<6>${rest}`, `<7>${rest}`, `<7>${rest}`]);
  });
});
