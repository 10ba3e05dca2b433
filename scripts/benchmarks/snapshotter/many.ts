// stasisd's index with 10,000 snapshots: its start, its memory, and Stat by many callers at once. See listed-daemon.ts.
import { setTimeout as sleep } from 'node:timers/promises';
import { toProperties } from '../../../snapshotter/properties.ts';
import { wallTime } from '../../../src/sys/clock.ts';
import { type Measure, median, type Options, report } from '../measure.ts';
import { ListedDaemon } from './listed-daemon.ts';
import { statCalls, type StatResult } from './stat.ts';

const STAT_CALLERS = 64;
const STAT_CALLS = 200;
const COUNT = 10_000;
/** Layers below each other, and as many containers on the last of them. */
const CHAIN = 8;
const ROOT = 'tank/stasis';
const OWNER = '11111111-2222-3333-4444-555555555555';
const ASKED = [
  'stasis:parent',
  'stasis:state',
  'stasis:checkpoint',
  'stasis:checkpoint-name',
  'stasis:inodes',
];

/** The lines of one dataset, with those that say that it lacks something. */
function lines(name: string, properties: Readonly<Record<string, string>>, origin: string): string {
  const rows = [
    `type\t${name.includes('@') ? 'snapshot' : 'filesystem'}\t-`,
    `origin\t${origin}\t-`,
    'referenced\t30720\t-',
  ];
  for (const [property, value] of Object.entries(properties)) rows.push(`${property}\t${value}\tlocal`);
  for (const property of ASKED) if (!(property in properties)) rows.push(`${property}\t-\t-`);
  return rows.map((row) => `${name}\t${row}\n`).join('');
}

const digestOf = (chain: number, at: number): string =>
  `${chain.toString(16).padStart(8, '0')}${at}`.padEnd(64, 'f');
const layerName = (chain: number, at: number): string =>
  `default/${chain * 16 + at}/sha256:${digestOf(chain, at)}`;

function listing(): string {
  let text = ['', '/layers', '/containers', '/containers/default', '/trash', '/reading']
    .map((folder) => lines(`${ROOT}${folder}`, {}, '-'))
    .join('');
  for (let chain = 0; chain < COUNT / (2 * CHAIN); chain++) {
    let [parent, origin] = ['', '-'];
    const made = { created: wallTime(), updated: wallTime(), owner: OWNER, generation: 1 };
    for (let at = 0; at < CHAIN; at++) {
      const digest = digestOf(chain, at);
      const dataset = `${ROOT}/layers/${digest.slice(0, 16)}`;
      const key = `default/${chain * 16 + at}/extract-${at} sha256:${digest}`;
      const name = layerName(chain, at);
      const labels = {
        'containerd.io/gc.root': '2026-01-01T00:00:00Z',
        'containerd.io/snapshot.ref': `sha256:${digest}`,
        'containerd.io/uncompressed': `sha256:${digest}`,
      };
      text += lines(dataset, toProperties({ ...made, name: key, kind: 'active', parent, labels }), origin);
      text += lines(
        `${dataset}@layer`,
        toProperties({ ...made, name, kind: 'committed', parent, labels }),
        '-',
      );
      [parent, origin] = [name, `${dataset}@layer`];
    }
    for (let at = 0; at < CHAIN; at++) {
      const id = `container-${chain}-${at}`;
      const name = `default/${chain * 16 + 8 + at}/${id}`;
      const properties = toProperties({ ...made, name, kind: 'active', parent, labels: {} });
      text += lines(`${ROOT}/containers/default/${id}`, properties, origin);
    }
  }
  return text;
}

/**
 * Starts of stasisd with 10,000 snapshots: how long they took, and what the process then weighed. With the last of them,
 * Stat by 64 callers at once over its own socket.
 */
export async function manySnapshots(options: Options): Promise<void> {
  const tell = (name: string, row: Omit<Measure, 'name'>): void => {
    if (name.includes(options.only)) report({ name, ...row }, options);
  };
  const wanted = (...names: string[]): boolean => names.some((name) => name.includes(options.only));
  const pool = { listing: listing(), root: ROOT, owner: OWNER };
  const runs = wanted('load-10000', 'memory-10000') ? (options.runs ?? 7) : 1;
  const [seconds, megabytes]: [number[], number[]] = [[], []];
  let stat: StatResult | undefined;
  for (let n = 0; n < runs; n++) {
    const daemon = await ListedDaemon.start(pool);
    try {
      const left = await statCalls(daemon, { names: [layerName(0, 0)], callers: 1, calls: 1 });
      if (left.failed > 0) throw new Error('the snapshots were not loaded');
      await sleep(1000); // what is not needed any more goes meanwhile
      seconds.push(daemon.seconds);
      megabytes.push(daemon.megabytes());
      if (n === runs - 1 && wanted('stat-64', 'stat-64-rate')) stat = await statUnderLoad(daemon);
    } finally {
      await daemon.stop();
    }
  }
  const asked = { peerName: 'what was asked', runs };
  tell('load-10000', { unit: 's', ours: median(seconds), peer: 3, target: 1, ...asked });
  tell('memory-10000', { unit: 'MB', ours: median(megabytes), peer: 150, target: 1, ...asked });
  if (stat === undefined) return;
  const calls = { peerName: 'what was asked', runs: STAT_CALLERS * STAT_CALLS };
  tell('stat-64', { unit: 'ms', ours: stat.p99, peer: 20, target: 1, ...calls });
  tell('stat-64-rate', { unit: '/s', ours: stat.rate, peer: 2000, atLeast: 1, ...calls });
}

/** Of snapshots all over the pool, after as many calls to warm up as containerd makes at its own start. */
async function statUnderLoad(daemon: ListedDaemon): Promise<StatResult> {
  const names = Array.from({ length: COUNT / 2 }, (_, at) => layerName(Math.floor(at / CHAIN), at % CHAIN));
  await statCalls(daemon, { names, callers: STAT_CALLERS, calls: 50 });
  const result = await statCalls(daemon, { names, callers: STAT_CALLERS, calls: STAT_CALLS });
  if (result.failed > 0) throw new Error(`${result.failed} Stat calls failed`);
  return result;
}
