// A start of stasisd's index with 10,000 snapshots, in a process of its own: `load.ts` reads a listing that this writes.
// zfs-fuse takes minutes to make such a pool and as long to list it, so what it would print is written to a file, and a
// program that prints that stands for `zfs`: the figures are our part, and the listing's own time has to be added.
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { toProperties } from '../../../snapshotter/properties.ts';
import { wallTime } from '../../../src/sys/clock.ts';
import { type Options, report, run, median } from '../measure.ts';

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

function listing(): string {
  let text = ['', '/layers', '/containers', '/containers/default', '/trash', '/reading']
    .map((folder) => lines(`${ROOT}${folder}`, {}, '-'))
    .join('');
  for (let chain = 0; chain < COUNT / (2 * CHAIN); chain++) {
    let [parent, origin] = ['', '-'];
    const made = { created: wallTime(), updated: wallTime(), owner: OWNER, generation: 1 };
    for (let at = 0; at < CHAIN; at++) {
      const digest = `${chain.toString(16).padStart(8, '0')}${at}`.padEnd(64, 'f');
      const dataset = `${ROOT}/layers/${digest.slice(0, 16)}`;
      const key = `default/${chain * 16 + at}/extract-${at} sha256:${digest}`;
      const name = `default/${chain * 16 + at}/sha256:${digest}`;
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

export async function manySnapshots(options: Options): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'stasis-bench-'));
  try {
    writeFileSync(`${folder}/listing`, listing());
    const program = `#!/bin/sh\ncase $1 in version) echo zfs-kmod-2.3.0;; get) exec cat '${folder}/listing';; esac\n`;
    writeFileSync(`${folder}/zfs`, program);
    chmodSync(`${folder}/zfs`, 0o755);
    const runs = options.runs ?? 7;
    const [seconds, megabytes]: [number[], number[]] = [[], []];
    for (let n = 0; n < runs; n++) {
      const answer = run(
        process.execPath,
        join(import.meta.dirname, 'load.ts'),
        `${folder}/zfs`,
        ROOT,
        OWNER,
      );
      const loaded = JSON.parse(answer) as { seconds: number; megabytes: number; snapshots: number };
      if (loaded.snapshots !== COUNT)
        throw new Error(`${loaded.snapshots} of ${COUNT} snapshots were loaded`);
      seconds.push(loaded.seconds);
      megabytes.push(loaded.megabytes);
    }
    const tell = (name: string, unit: string, ours: number, peer: number): void => {
      if (name.includes(options.only))
        report({ name, unit, ours, peer, runs, peerName: 'what was asked', target: 1 }, options);
    };
    tell('load-10000', 's', median(seconds), 3);
    tell('memory-10000', 'MB', median(megabytes), 150);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
