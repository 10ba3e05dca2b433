import assert from 'node:assert/strict';
import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite, test, type TestContext } from 'node:test';
import { defaults } from '../../../src/config/config.ts';
import { applySteps, describeUndo, undoEntries } from '../../../src/setup/apply.ts';
import { gatherFacts, type Surroundings } from '../../../src/setup/facts.ts';
import type { Step } from '../../../src/setup/plan.ts';
import { runningContainers } from '../../../src/setup/running.ts';
import { replaceFile, SetupState } from '../../../src/setup/state.ts';
import { startTimeOf } from '../../../src/sys/process.ts';
import type { CommandResult, Exec } from '../../../src/sys/command.ts';

const MAIN = '/etc/containerd/config.toml';
const DROP_IN = '/etc/containerd/conf.d/stasis.toml';
const quiet = (): undefined => undefined;

/** A host in a folder, and the programs of it: those that `fails` matches end with 1. */
async function hostIn(t: TestContext, fails = /^$/) {
  const prefix = await mkdtemp(join(tmpdir(), 'stasis-setup-'));
  t.after(() => rm(prefix, { recursive: true, force: true }));
  await mkdir(join(prefix, 'etc/containerd'), { recursive: true });
  await writeFile(prefix + MAIN, 'version = 2\n');
  await chmod(prefix + MAIN, 0o640);
  const calls: string[] = [];
  const exec: Exec = async (file, args) => {
    const call = [file, ...args].join(' ');
    calls.push(call);
    const failed = fails.test(call);
    return {
      exitCode: failed ? 1 : 0,
      stdout: file === 'zfs' && args[0] === 'version' ? 'zfs-2.3.2\nzfs-kmod-2.3.2\n' : '',
      stderr: failed ? `${file} failed` : '',
    } as CommandResult;
  };
  const around: Surroundings = {
    exec,
    config: structuredClone(defaults),
    uid: 0,
    prefix,
    containerdConfig: MAIN,
  };
  return { prefix, around, calls };
}

/** Every path below a folder with its mode and content. */
async function tree(folder: string): Promise<string[]> {
  const names = (await readdir(folder, { recursive: true })).sort();
  return Promise.all(
    names.map(async (name) => {
      const path = join(folder, name);
      const { mode } = await stat(path);
      const content = (await stat(path)).isFile() ? await readFile(path, 'utf8') : '';
      return `${name} ${(mode & 0o7777).toString(8)} ${content}`;
    }),
  );
}

const steps: Step[] = [
  { kind: 'dataset', name: 'tank/stasis' },
  { kind: 'service' },
  { kind: 'file', path: DROP_IN, text: 'ours\n', why: 'test' },
  { kind: 'file', path: MAIN, text: 'version = 2\nimports = []\n', why: 'test' },
];

suite('setup', () => {
  test('changes what the steps say, keeps modes, and is undone to the last byte', async (t) => {
    const { prefix, around } = await hostIn(t);
    const before = await tree(prefix);
    await applySteps(steps, around, await SetupState.load(prefix), quiet);
    assert.equal(await readFile(prefix + DROP_IN, 'utf8'), 'ours\n');
    assert.equal((await stat(prefix + MAIN)).mode & 0o7777, 0o640);
    assert.notDeepEqual(await tree(prefix), before);
    // By another process, later.
    const state = await SetupState.load(prefix);
    assert.equal(state.written(DROP_IN), 'ours\n');
    const left = await undoEntries(state.entries, around, state, { keepData: true, tell: quiet });
    assert.deepEqual(left, ['the dataset tank/stasis stays, with all that is in it']);
    await rm(join(prefix, 'var'), { recursive: true });
    assert.deepEqual(await tree(prefix), before);
  });

  for (const [at, fails] of [
    ['the dataset cannot be made', /^zfs create/],
    ['the service does not start', /^systemctl enable/],
    ['containerd does not restart', /^systemctl restart containerd/],
  ] as const) {
    test(`leaves everything as it was when ${at}`, async (t) => {
      const { prefix, around, calls } = await hostIn(t, fails);
      const before = await tree(prefix);
      const all: Step[] = [...steps, { kind: 'restart-containerd' }];
      const lines: string[] = [];
      await assert.rejects(
        applySteps(all, around, await SetupState.load(prefix), (line) => lines.push(line)),
      );
      await rm(join(prefix, 'var'), { recursive: true, force: true });
      assert.deepEqual(await tree(prefix), before);
      assert.ok(lines.some((line) => line.startsWith('failed: ')));
      const restarts = calls.filter((call) => call === 'systemctl restart containerd.service').length;
      assert.equal(restarts, at.includes('restart') ? 2 : 0, 'with its old configuration again');
    });
  }

  test('never overwrites what was edited since', async (t) => {
    const { prefix, around } = await hostIn(t);
    const state = await SetupState.load(prefix);
    await applySteps(steps.slice(2), around, state, quiet);
    await writeFile(prefix + MAIN, 'version = 2\nimports = []\nroot = "/mine"\n');
    await rm(prefix + DROP_IN);
    const left = await undoEntries(state.entries, around, state, { keepData: true, tell: quiet });
    assert.match(left.join('\n'), /config\.toml was edited since, and stays/);
    assert.equal(await readFile(prefix + MAIN, 'utf8'), 'version = 2\nimports = []\nroot = "/mine"\n');
  });

  test('takes its import out of a file that was edited since, and is never what keeps containerd from starting', async (t) => {
    const { prefix, around } = await hostIn(t);
    const state = await SetupState.load(prefix);
    const imports = `imports = ["${DROP_IN}"]\n`;
    const write: Step[] = [
      { kind: 'file', path: DROP_IN, text: 'ours\n', why: 'test' },
      { kind: 'file', path: MAIN, text: `version = 2\n${imports}`, why: 'test' },
    ];
    await applySteps(write, around, state, quiet);
    await writeFile(prefix + MAIN, `version = 2\n${imports}root = "/mine"\n`);
    const lines = await Promise.all(state.entries.map((entry) => describeUndo(entry, around)));
    assert.match(
      lines.join('\n'),
      /leave .*config\.toml as it is, which was edited since, but take the import/,
    );
    assert.match(
      (await undoEntries(state.entries, around, state, { keepData: true, tell: quiet })).join(),
      /taken out/,
    );
    assert.equal(await readFile(prefix + MAIN, 'utf8'), 'version = 2\nroot = "/mine"\n');
    await assert.rejects(stat(prefix + DROP_IN), { code: 'ENOENT' });

    await applySteps(write, around, state, quiet);
    const spread = `version = 2\nimports = [\n  "${DROP_IN}",\n]\n`;
    await writeFile(prefix + MAIN, spread);
    const left = await undoEntries(state.entries, around, state, { keepData: true, tell: quiet });
    assert.match(left.join('\n'), /stasis\.toml is empty now, and stays/);
    assert.equal(await readFile(prefix + MAIN, 'utf8'), spread);
    assert.doesNotMatch(await readFile(prefix + DROP_IN, 'utf8'), /^[^#]/m);
  });

  test('is undone when it is cancelled between two steps', async (t) => {
    const { prefix, around } = await hostIn(t);
    const before = await tree(prefix);
    const gone = new AbortController();
    const lines: string[] = [];
    const tell = (line: string): void => {
      lines.push(line);
      if (line.startsWith('write')) gone.abort(new Error('cancelled'));
    };
    await assert.rejects(
      applySteps(steps.slice(2), around, await SetupState.load(prefix), tell, gone.signal),
      /cancelled/,
    );
    await rm(join(prefix, 'var'), { recursive: true, force: true });
    assert.deepEqual(await tree(prefix), before);
    assert.ok(lines.includes('cancelled; undoing it'));
  });

  test('does not destroy a dataset that a stasisd serves', async (t) => {
    const { prefix, around, calls } = await hostIn(t);
    const state = await SetupState.load(prefix);
    await applySteps(steps.slice(0, 1), around, state, quiet);
    const runDir = join(prefix, around.config.daemon.run_dir);
    await mkdir(runDir, { recursive: true });
    const server = createServer().listen(join(runDir, 'stasisd.sock'));
    t.after(() => server.close());
    await once(server, 'listening');
    const left = await undoEntries(state.entries, around, state, { keepData: false, tell: quiet });
    assert.match(left.join(), /stop stasisd first.*to try again: stasis setup --undo/);
    assert.ok(!calls.some((call) => call.startsWith('zfs destroy')));
    assert.equal(state.entries.length, 1);
  });

  test('finds the containers that run under our shims, by the shims’ records', async (t) => {
    const { prefix } = await hostIn(t);
    const record = async (id: string, text: string): Promise<void> => {
      await mkdir(join(prefix, 'tasks', id), { recursive: true });
      await writeFile(join(prefix, 'tasks', id, 'state.json'), text);
    };
    const startTime = startTimeOf(process.pid);
    await record('default/web', JSON.stringify({ pid: process.pid, startTime }));
    await record('default/old', JSON.stringify({ pid: process.pid, startTime: '1' }));
    await record('default/new', JSON.stringify({ pid: 0, startTime: '' }));
    await record('default/torn', '{');
    await record('stasis-setup-check/check', JSON.stringify({ pid: process.pid, startTime }));
    assert.deepEqual(runningContainers(prefix), ['default/web']);
    assert.deepEqual(runningContainers(join(prefix, 'nothing')), []);
  });

  test('that was cut off before a change was made has nothing to undo there', async (t) => {
    const { prefix, around } = await hostIn(t);
    const state = await SetupState.load(prefix);
    await state.add({ kind: 'file', path: DROP_IN, before: undefined, folders: [], after: 'x', text: 'x' });
    const again = await SetupState.load(prefix);
    assert.deepEqual(await undoEntries(again.entries, around, again, { keepData: true, tell: quiet }), []);
  });

  test('makes no change of which it could not keep a record', async (t) => {
    const { prefix, around } = await hostIn(t);
    const before = await tree(prefix);
    const state = await SetupState.load(prefix);
    await writeFile(join(prefix, 'var'), 'not a folder, so nothing can be kept below it');
    await assert.rejects(applySteps(steps.slice(2), around, state, quiet), { reason: 'file-error' });
    assert.deepEqual(state.entries, []);
    await rm(join(prefix, 'var'));
    assert.deepEqual(await tree(prefix), before);
  });

  test('undoes the rest where one thing cannot be undone, and keeps that for another try', async (t) => {
    const { prefix, around } = await hostIn(t);
    const before = await tree(prefix);
    const state = await SetupState.load(prefix);
    await applySteps(steps.slice(2), around, state, quiet);
    // What the last step wrote is a folder now, which nobody can read as a file.
    await rm(prefix + MAIN);
    await mkdir(prefix + MAIN);
    const left = await undoEntries(state.entries, around, state, { keepData: true, tell: quiet });
    assert.match(left.join('\n'), /config\.toml is not as it was: .*; to try again: stasis setup --undo/);
    await assert.rejects(stat(prefix + DROP_IN), 'the step before it is undone');
    await rm(prefix + MAIN, { recursive: true });
    await writeFile(prefix + MAIN, 'version = 2\nimports = []\n', { mode: 0o640 });
    const again = await SetupState.load(prefix);
    assert.deepEqual(await undoEntries(again.entries, around, again, { keepData: true, tell: quiet }), []);
    await rm(join(prefix, 'var'), { recursive: true });
    assert.deepEqual(await tree(prefix), before);
  });

  test('done twice over an older file of ours is undone to the first', async (t) => {
    const { prefix, around } = await hostIn(t);
    const state = await SetupState.load(prefix);
    await applySteps([{ kind: 'file', path: DROP_IN, text: 'one\n', why: '' }], around, state, quiet);
    await applySteps([{ kind: 'file', path: DROP_IN, text: 'two\n', why: '' }], around, state, quiet);
    assert.deepEqual(await undoEntries(state.entries, around, state, { keepData: true, tell: quiet }), []);
    await assert.rejects(stat(prefix + DROP_IN));
    await assert.rejects(stat(join(prefix, 'etc/containerd/conf.d')), 'nor the folder that it was put in');
  });

  test('writes through a symbolic link, and says why it cannot write', async (t) => {
    const { prefix } = await hostIn(t);
    await symlink(prefix + MAIN, join(prefix, 'link'));
    await replaceFile(join(prefix, 'link'), Buffer.from('x'), { mode: 0o600 });
    assert.equal(await readFile(prefix + MAIN, 'utf8'), 'x');
    await assert.rejects(replaceFile('/proc/nowhere/x', Buffer.from('x'), { mode: 0o600 }), {
      reason: 'file-error',
      subject: '/proc/nowhere/x',
    });
    await assert.rejects(replaceFile('/dev/full/x', Buffer.from('x'), { mode: 0o600 }), /cannot write/);
  });
});

suite('the facts of a host', () => {
  test("hold containerd's files as it imports them", async (t) => {
    const { prefix, around } = await hostIn(t, /^(zfs|zpool|containerd|criu|runc)/);
    await mkdir(join(prefix, 'etc/containerd/conf.d'));
    for (const name of ['b.toml', 'a.toml', 'stasis.toml', 'c.txt']) {
      await writeFile(join(prefix, 'etc/containerd/conf.d', name), `# ${name}`);
    }
    await writeFile(prefix + MAIN, 'imports = ["conf.d/*.toml", "/etc/containerd/none.toml"]\n');
    const facts = await gatherFacts(around);
    assert.deepEqual(
      facts.files.imported.map(({ path }) => path),
      ['/etc/containerd/conf.d/a.toml', '/etc/containerd/conf.d/b.toml'],
    );
    assert.equal(facts.dropIn, '# stasis.toml');
    assert.equal(facts.systemd, undefined);
    assert.equal(facts.containerd, undefined);
    assert.equal(facts.zfs, undefined);
  });
});
