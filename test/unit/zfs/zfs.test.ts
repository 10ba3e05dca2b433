import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  AlreadyExists,
  Cancelled,
  DeadlineExceeded,
  Internal,
  InvalidArgument,
  NotFound,
  PermissionDenied,
  ResourceExhausted,
} from '../../../src/errors.ts';
import type { CommandResult, Exec } from '../../../src/sys/command.ts';
import { Busy, HasChildren, HasClones, ParentMissing, ZfsUnavailable } from '../../../src/zfs/errors.ts';
import { openZfs, type Zfs, type ZfsKind } from '../../../src/zfs/zfs.ts';

const ok: CommandResult = {
  exitCode: 0,
  signal: undefined,
  stdout: '',
  stderr: '',
  timedOut: false,
  cancelled: false,
  durationMs: 1,
  spawnError: undefined,
};

/** A door whose programs answer as told, and the commands that went through it. */
async function door(
  kind: ZfsKind,
  answer: (args: readonly string[]) => Partial<CommandResult> = () => ({}),
): Promise<{ zfs: Zfs; seen: string[][] }> {
  const seen: string[][] = [];
  const exec: Exec = async (_file, args, options) => {
    if (args[0] === 'version')
      return kind === 'openzfs'
        ? { ...ok, stdout: 'zfs-2.3.9-1\nzfs-kmod-2.3.9-1\n' }
        : { ...ok, exitCode: 2 };
    if (args[0] === 'upgrade')
      return { ...ok, stdout: 'This system is currently running ZFS pool version 23.\n' };
    seen.push([...args]);
    const result = { ...ok, ...answer(args) };
    if (options?.onStdout === undefined) return result;
    for (const byte of Buffer.from(result.stdout)) options.onStdout(Buffer.of(byte)); // as small as pieces can be
    return { ...result, stdout: '' };
  };
  return { zfs: await openZfs(exec), seen };
}

test('the two kinds of ZFS are told apart by what they answer', async () => {
  const module = await door('openzfs');
  assert.deepEqual([module.zfs.kind, module.zfs.version], ['openzfs', '2.3.9-1']);
  const fuse = await door('zfs-fuse');
  assert.deepEqual([fuse.zfs.kind, fuse.zfs.version], ['zfs-fuse', 'pool version 23']);
});

test('a host without ZFS is told what to install, one whose daemon is down what to start', async () => {
  const absent: Exec = async () => ({ ...ok, exitCode: undefined, spawnError: 'ENOENT' });
  await assert.rejects(
    openZfs(absent),
    (error) => error instanceof ZfsUnavailable && /install/.test(error.remedy ?? ''),
  );
  const down: Exec = async () => ({
    ...ok,
    exitCode: 1,
    stderr:
      'connect: No such file or directory\nPlease make sure that the zfs-fuse daemon is running.\ninternal error: failed to initialize ZFS library\n',
  });
  await assert.rejects(
    openZfs(down),
    (error) => error instanceof ZfsUnavailable && /start it/.test(error.remedy ?? ''),
  );
});

test('several snapshots are one command on the module; on zfs-fuse one each, and none is left when one fails', async () => {
  const module = await door('openzfs');
  await module.zfs.snapshot(['t/a@x', 't/b@x'], { properties: { 'stasis:k': 'v w' } });
  assert.deepEqual(module.seen, [['snapshot', '-o', 'stasis:k=v w', 't/a@x', 't/b@x']]);
  const fuse = await door('zfs-fuse', (args) =>
    args.at(-1) === 't/b@x' ? { exitCode: 1, stderr: "cannot create snapshot 't/b@x': out of space\n" } : {},
  );
  await assert.rejects(fuse.zfs.snapshot(['t/a@x', 't/b@x']), ResourceExhausted);
  assert.deepEqual(fuse.seen, [
    ['snapshot', 't/a@x'],
    ['snapshot', 't/b@x'],
    ['destroy', 't/a@x'],
  ]);
});

test('properties are set in one command on the module, in the given order on zfs-fuse', async () => {
  const module = await door('openzfs');
  await module.zfs.set('t/a', { 'stasis:a': '1', 'stasis:b': '2' });
  assert.deepEqual(module.seen, [['set', 'stasis:a=1', 'stasis:b=2', 't/a']]);
  const fuse = await door('zfs-fuse');
  await fuse.zfs.set('t/a', { 'stasis:a': '1', 'stasis:b': '2' });
  assert.deepEqual(fuse.seen, [
    ['set', 'stasis:a=1', 't/a'],
    ['set', 'stasis:b=2', 't/a'],
  ]);
});

test('hostile names and values never reach the command line', async () => {
  const { zfs, seen } = await door('openzfs');
  for (const name of [
    '',
    '/',
    'a/',
    'a//b',
    'a/../b',
    'a b/\n',
    'a@b',
    'a/$(x)',
    'ä',
    `t/${'x'.repeat(300)}`,
    'a#b',
  ]) {
    await assert.rejects(zfs.create(name), InvalidArgument, name);
  }
  for (const name of ['a', 'a@', '@b', 'a@b@c', 'a@b/c', 'a@..'])
    await assert.rejects(zfs.snapshot([name]), InvalidArgument, name);
  for (const [property, value] of [
    ['stasis:x', 'line\nbreak'],
    ['stasis:x', 'tab\t'],
    ['stasis:x', 'é'],
    ['stasis:x', 'x'.repeat(1025)],
    ['bad name', 'x'],
    ['-o', 'x'],
    ['compression', ''],
  ] as const) {
    await assert.rejects(zfs.create('t/a', { properties: { [property]: value } }), InvalidArgument, property);
  }
  assert.deepEqual(seen, []);
});

test('a listing keeps values with spaces, tells own from inherited, and drops what is not there', async () => {
  const stdout = [
    't/a\ttype\tfilesystem\t-',
    't/a\torigin\t-\t-',
    't/a\tstasis:k\ta b \tlocal',
    't/a@s\ttype\tsnapshot\t-',
    't/a@s\tstasis:k\ta b \tinherited from t/a',
    't/a@s\tstasis:l\t-\tlocal',
    '',
  ].join('\n');
  const { zfs, seen } = await door('zfs-fuse', () => ({ stdout }));
  const rows = await zfs.list({
    root: 't/a',
    types: ['filesystem', 'snapshot'],
    properties: ['origin', 'stasis:k', 'stasis:l'],
  });
  assert.deepEqual(
    rows.map(({ name, type, properties }) => [name, type, Object.fromEntries(properties)]),
    [
      ['t/a', 'filesystem', { 'stasis:k': { value: 'a b ', source: 'local' } }],
      [
        't/a@s',
        'snapshot',
        { 'stasis:k': { value: 'a b ', source: 'inherited' }, 'stasis:l': { value: '-', source: 'local' } },
      ],
    ],
  );
  assert.ok(!seen.flat().includes('-t'), 'zfs-fuse knows no -t');
  const snapshots = await zfs.list({ root: 't/a', types: ['snapshot'], properties: [] });
  assert.deepEqual(
    snapshots.map((row) => row.name),
    ['t/a@s'],
  );
});

test('a listing of any length is read as it comes, and asks for set properties alone where told', async () => {
  const line = (at: number): string => `t/${at}\tstasis:k\t${'v'.repeat(1000)}${at}\tlocal\n`;
  const seen: string[][] = [];
  const exec: Exec = async (_file, args, options) => {
    if (args[0] === 'version') return { ...ok, stdout: 'zfs-kmod-2.3.9-1\n' };
    seen.push([...args]);
    // More than the door keeps of a program's output.
    for (let at = 0; at < 70_000; at++) options?.onStdout?.(Buffer.from(line(at)));
    return ok;
  };
  const zfs = await openZfs(exec);
  const rows = await zfs.list({ root: 't', types: ['filesystem'], properties: ['stasis:k'], setOnly: true });
  assert.equal(rows.length, 70_000);
  assert.equal(rows.at(-1)?.properties.get('stasis:k')?.value.length, 1005);
  assert.equal(seen[0]?.[seen[0].indexOf('-s') + 1], 'local,received');
});

const messages: readonly (readonly [string, new (...args: never[]) => Error])[] = [
  ["cannot open 't/a': dataset does not exist", NotFound],
  ["cannot open 'nono': no such pool", NotFound],
  ['could not find any snapshots to destroy; check snapshot names.', NotFound],
  ["cannot create 't/a': dataset already exists", AlreadyExists],
  ["cannot create snapshot 't/a@b': dataset already exists", AlreadyExists],
  ["cannot create 't/a/b': parent does not exist", ParentMissing],
  [
    "cannot destroy 't/a': filesystem has children\nuse '-r' to destroy the following datasets:\nt/a@s",
    HasChildren,
  ],
  [
    "cannot destroy 't/a': filesystem has dependent clones\nuse '-R' to destroy the following datasets:\nt/b",
    HasClones,
  ],
  ["cannot destroy 't/a@b': snapshot has dependent clones", HasClones],
  ["cannot destroy 't/a': dataset is busy", Busy],
  ["cannot rename 't/a': pool or dataset is busy", Busy],
  ["cannot mount 't/a': mountpoint or dataset is busy", Busy],
  ["umount: /x: target is busy.\ncannot unmount '/x': umount failed: umount child process failed", Busy],
  ["cannot unmount '/x': unmount failed", Busy],
  ["cannot create 't/a': out of space", ResourceExhausted],
  ["cannot create 't/a': permission denied", PermissionDenied],
  ["cannot open 't/a': pool I/O is currently suspended", ZfsUnavailable],
  ["cannot create 't/a': name is too long", InvalidArgument],
  ["cannot create 't/a': invalid property 'x'", InvalidArgument],
  ["cannot create 't/dataset does not exist': something new", Internal],
  ['a line that nobody knows: dataset already exists, or not', Internal],
  ['', Internal],
];
for (const [stderr, kind] of messages) {
  test(`stderr ${JSON.stringify(stderr.split('\n')[0])} becomes ${kind.name}`, async () => {
    const { zfs } = await door('openzfs', () => ({ exitCode: 1, stderr: `${stderr}\n` }));
    await assert.rejects(zfs.destroy('t/a'), (error) => {
      assert.equal((error as Error).constructor.name, kind.name);
      assert.ok((error as Error).message.includes('t/a'), 'the message names the dataset');
      return true;
    });
  });
}

test('a deadline and a cancelled call have errors of their own', async () => {
  const slow = await door('openzfs', () => ({ exitCode: undefined, timedOut: true }));
  await assert.rejects(slow.zfs.create('t/a'), DeadlineExceeded);
  const cancelled = await door('openzfs', () => ({ cancelled: true }));
  await assert.rejects(cancelled.zfs.create('t/a'), Cancelled);
});
