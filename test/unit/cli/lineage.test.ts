import assert from 'node:assert/strict';
import { test } from 'node:test';
import { lineage } from '../../../src/cli/lineage.ts';
import { drawTree, hasUnicode } from '../../../src/cli/tree.ts';
import { ContainerSummary, type DeepPartial, ListResponse } from '../../../src/proto/gen/stasis/stasis.ts';
import { aCheckpoint, against, ago, now } from './harness.ts';

const summary = (fields: DeepPartial<ContainerSummary>): ContainerSummary =>
  ContainerSummary.fromPartial({ namespace: 'default', exists: true, status: 'running', ...fields });

/** web: taken one, two; rewound to one; taken three. web-1 cloned from two; web-1-1 cloned from web-1's four. */
const history = [
  summary({
    name: 'web',
    pid: 7,
    image: 'busybox',
    disks: [
      { dataset: 'p/web2', current: true, originCheckpointId: 'id-one', createdAt: ago(40) },
      { dataset: 'p/web', createdAt: ago(100) },
    ],
    checkpoints: [
      aCheckpoint({ name: 'three', snapshot: 'p/web2@three', createdAt: ago(30) }),
      aCheckpoint({ name: 'one', snapshot: 'p/web@one', createdAt: ago(90) }),
      aCheckpoint({ name: 'two', snapshot: 'p/web@two', createdAt: ago(80), memory: 0 }),
    ],
  }),
  summary({
    name: 'web-1',
    disks: [{ dataset: 'p/web-1', current: true, originCheckpointId: 'id-two', createdAt: ago(70) }],
    checkpoints: [
      aCheckpoint({ name: 'four', container: 'web-1', snapshot: 'p/web-1@four', createdAt: ago(60) }),
    ],
  }),
  summary({
    name: 'web-1-1',
    exists: false,
    disks: [{ dataset: 'p/web-1-1', current: true, originCheckpointId: 'id-four', createdAt: ago(50) }],
  }),
  summary({
    name: 'lost',
    disks: [{ dataset: 'p/lost', current: true, originCheckpointId: 'id-gone', foreign: true }],
  }),
];

test('the tree shows what came from what, and where each container is', async () => {
  const handlers = { list: async () => ListResponse.fromPartial({ containers: history }) };
  const { stdout } = await against(handlers, ['ls'], { now, env: { LANG: 'C.UTF-8' } });
  const figures = 'unique 1.5 KiB  frozen 23.4 ms';
  assert.equal(
    stdout,
    [
      'lost  running  from id-gone  foreign: see `stasis adopt --dry-run`',
      'web  running  pid 7  busybox',
      `├─ one  90 s ago  memory 8.0 MiB  ${figures}`,
      '│  └─ web  rewound 40 s ago',
      `│     ├─ three  30 s ago  memory 8.0 MiB  ${figures}`,
      '│     └─ ● web is here',
      `└─ two  80 s ago  disk only  ${figures}`,
      '   └─ web-1  running',
      `      ├─ four  60 s ago  memory 8.0 MiB  ${figures}`,
      '      │  └─ web-1-1  removed',
      '      └─ ● web-1 is here',
      '',
    ].join('\n'),
  );
  const plain = await against(handlers, ['ls', '--all-namespaces'], { now });
  assert.match(plain.stdout, /^default\/web {2}running {2}pid 7 {2}busybox\n\|- one /m);
  assert.ok(!/[^ -~\n]/.test(plain.stdout), 'characters outside ASCII without a UTF-8 locale');
});

test('ls of one container shows what it came from and what came from it, not its siblings', async () => {
  const sibling = summary({
    name: 'web-2',
    disks: [{ dataset: 'p/web-2', current: true, originCheckpointId: 'id-two', createdAt: ago(20) }],
  });
  const handlers = { list: async () => ListResponse.fromPartial({ containers: [...history, sibling] }) };
  const names = async (container: string): Promise<string[]> => {
    const { stdout } = await against(handlers, ['ls', container], { now });
    return ['lost', 'web ', 'web-1 ', 'web-1-1', 'web-2']
      .filter((name) => stdout.includes(name))
      .map((name) => name.trim());
  };
  assert.deepEqual(await names('web'), ['web', 'web-1', 'web-1-1', 'web-2']);
  assert.deepEqual(await names('web-1'), ['web', 'web-1', 'web-1-1']);
  assert.deepEqual(await names('web-1-1'), ['web', 'web-1', 'web-1-1']);
  assert.deepEqual(await names('lost'), ['lost']);
  const document = JSON.parse((await against(handlers, ['ls', 'web-1', '--json'])).stdout) as {
    containers: unknown[];
  };
  assert.partialDeepStrictEqual(document, { containers: [{ name: 'web-1' }] });
  assert.equal(document.containers.length, 1);
  const none = await against(handlers, ['ls', 'nobody']);
  assert.equal(none.code, 3);
  assert.match(none.stderr, /^stasis: no container nobody in namespace default\n {2}next: /);
});

test('a container whose checkpoint was removed after a rewind to it stands there once', () => {
  const web = summary({
    name: 'web',
    disks: [
      { dataset: 'p/web', createdAt: ago(100) },
      { dataset: 'p/web.2', current: true, originCheckpointId: '', createdAt: ago(40) },
    ],
    checkpoints: [aCheckpoint({ name: 'one', snapshot: 'p/web@one', createdAt: ago(90) })],
  });
  const nodes = lineage([web], { now, allNamespaces: false, here: '*' });
  const labels = nodes.map(({ label, children }) => [label, ...children.map((child) => child.label)]);
  assert.equal(labels.length, 1);
  assert.equal(labels[0]?.[0], 'web  running');
  assert.match(labels[0]?.[1] ?? '', /^one /);
  assert.deepEqual(labels[0]?.slice(2), ['web  rewound 40 s ago']);
  assert.deepEqual(
    nodes[0]?.children[1]?.children.map(({ label }) => label),
    ['* web is here'],
  );
});

test("a container made anew under a removed one's name was not rewound, and is not called so", () => {
  const web = summary({
    name: 'web',
    disks: [
      { dataset: 'p/web', anew: true, createdAt: ago(100) },
      { dataset: 'p/web.2', current: true, anew: true, createdAt: ago(40) },
    ],
    checkpoints: [
      aCheckpoint({ name: 'old', snapshot: 'p/web@old', createdAt: ago(90) }),
      aCheckpoint({ name: 'new', snapshot: 'p/web.2@new', createdAt: ago(30) }),
    ],
  });
  const [top] = lineage([web], { now, allNamespaces: false, here: '*' });
  assert.equal(top?.label, 'web  running');
  assert.equal(top?.children[1]?.label, 'web  made anew 40 s ago');
});

test('rings and self-references in bad data are drawn once, not for ever', () => {
  const ring = ['a', 'b'].map((name, index) =>
    summary({
      name,
      disks: [{ dataset: `p/${name}`, current: true, originCheckpointId: index === 0 ? 'id-b' : 'id-a' }],
      checkpoints: [aCheckpoint({ name, container: name, snapshot: `p/${name}@${name}` })],
    }),
  );
  const text = drawTree(lineage(ring, { now, allNamespaces: false, here: '*' }), false);
  assert.equal(text.split('\n').filter((line) => line.includes('is here')).length, 2);
});

test('ten thousand rewinds one from another are drawn', () => {
  const count = 10_000;
  const deep = summary({
    name: 'web',
    disks: Array.from({ length: count }, (_, index) => ({
      dataset: `p/${index}`,
      current: index === count - 1,
      originCheckpointId: index === 0 ? '' : `id-${index - 1}`,
      createdAt: ago(count - index),
    })),
    checkpoints: Array.from({ length: count }, (_, index) =>
      aCheckpoint({ name: String(index), snapshot: `p/${index}@${index}`, createdAt: ago(count - index) }),
    ),
  });
  let node = lineage([deep], { now, allNamespaces: false, here: '*' })[0];
  let depth = 0;
  for (; node !== undefined; node = node.children[0]) depth++;
  assert.equal(depth, 2 * count);
});

test('the locale decides about lines and dots', () => {
  assert.equal(hasUnicode({ LANG: 'en_US.UTF-8' }), true);
  assert.equal(hasUnicode({ LANG: 'en_US.UTF-8', LC_ALL: 'C' }), false);
  assert.equal(hasUnicode({}), false);
});
