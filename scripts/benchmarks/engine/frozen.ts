// How long a checkpoint has a container stand still, beside what the dump alone takes: `runc checkpoint --leave-running` of
// the same container by hand, to a tmpfs.
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { remove, start } from '../counter.ts';
import { median, report, run, timed, type Options } from '../measure.ts';
import { withBare } from './bare.ts';
import { importSmall } from './images.ts';

/** Milliseconds. */
interface BareDump {
  /** For which CRIU had the tasks stand still, by its own clock. */
  readonly frozen: number;
  /** From the command to its end. */
  readonly whole: number;
}

export async function frozenRows(options: Options, wanted: (name: string) => boolean): Promise<void> {
  const { runs = 9 } = options;
  for (const [megabytes, target] of [
    [8, 1.5],
    [512, 1.1],
  ] as const) {
    const name = `frozen-${megabytes}m`;
    if (!wanted(name)) continue;
    const ours = frozenTimes(megabytes, runs);
    const bare = await bareDumps(megabytes, runs);
    const [peer, peerName] =
      megabytes === 8
        ? [bare.map(({ frozen }) => frozen), "CRIU's own frozen time in a bare dump"]
        : [bare.map(({ whole }) => whole), 'the bare dump to a tmpfs'];
    report({ name, unit: 'ms', ours: median(ours), peer: median(peer), runs, peerName, target }, options);
  }
}

/** Of our checkpoints, as each tells; the first is a warm-up and not among them. */
function frozenTimes(megabytes: number, runs: number): number[] {
  const container = 'e-frozen';
  start(container, 'ours', importSmall(), megabytes);
  const times: number[] = [];
  try {
    for (let n = 0; n <= runs; n++) {
      const text = run('stasis', 'checkpoint', container, '--name', `c${n}`, '--require-memory', '--json');
      const { checkpoint } = JSON.parse(text) as {
        checkpoint: { memoryBytes: number; timings: { frozenNs: number } };
      };
      if (checkpoint.memoryBytes < megabytes * 2 ** 20)
        throw new Error(`the image of ${megabytes} MB has ${checkpoint.memoryBytes} bytes`);
      run('stasis', 'rm', container, `c${n}`);
      if (n > 0) times.push(checkpoint.timings.frozenNs / 1e6);
    }
  } finally {
    remove(container);
  }
  return times;
}

function bareDumps(megabytes: number, runs: number): Promise<BareDump[]> {
  const name = 'frozen';
  return withBare(name, megabytes, async ({ images, work, runc }) => {
    const dumps: BareDump[] = [];
    for (let n = 0; n <= runs; n++) {
      const folder = join(images, String(n));
      mkdirSync(folder);
      const places = ['--image-path', folder, '--work-path', work];
      const whole = timed(() => runc('checkpoint', '--leave-running', ...places, name));
      const frozen = frozenTime(readFileSync(join(work, 'stats-dump')));
      rmSync(folder, { recursive: true });
      if (n > 0) dumps.push({ frozen, whole });
    }
    return dumps;
  });
}

/**
 * From CRIU's `stats-dump`, in milliseconds: two magic numbers, a length, and a StatsEntry (criu/images/stats.proto) whose
 * first field, the dump's, has microseconds of freezing in its first and frozen in its second.
 */
function frozenTime(file: Buffer): number {
  let at = 12;
  const varint = (): number => {
    let [value, factor] = [0, 1];
    for (; ; factor *= 128) {
      const byte = file.readUInt8(at++);
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
  };
  if (varint() !== 0x0a) throw new Error('the stats of a dump do not begin with the dump');
  varint(); // its length
  if (varint() !== 0x08) throw new Error('the stats of a dump do not begin with the time of its freezing');
  varint();
  if (varint() !== 0x10) throw new Error('the stats of a dump have no frozen time');
  return varint() / 1000;
}
