// What all groups share: medians, lines of output, programs that must succeed.
import { spawnSync } from 'node:child_process';

export interface Measure {
  readonly name: string;
  readonly unit: string;
  readonly ours: number;
  readonly peer: number;
  readonly runs: number;
  readonly peerName: string;
  /** The most that the ratio may be, where one was set. */
  readonly target?: number;
  /** The same as the least, for what should be large. */
  readonly atLeast?: number;
}

export interface Options {
  /** Runs of each measure; undefined: what the group finds right. */
  readonly runs: number | undefined;
  readonly json: boolean;
  readonly only: string;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const [low, high] = [sorted[middle - 1] ?? 0, sorted[middle] ?? 0];
  return sorted.length % 2 === 1 ? high : (low + high) / 2;
}

/** Runs a program that has to succeed. */
export function run(file: string, ...args: string[]): string {
  const result = spawnSync(file, args, { encoding: 'utf8', maxBuffer: 1 << 28 });
  if (result.status !== 0) {
    throw new Error(
      `${file} ${args.join(' ')} ended with ${result.status ?? result.signal}: ${result.stderr}${result.stdout}`,
    );
  }
  return result.stdout;
}

/** Wall time in milliseconds. */
export function timed(work: () => void): number {
  const begin = process.hrtime.bigint();
  work();
  return Number(process.hrtime.bigint() - begin) / 1e6;
}

export function report(measure: Measure, options: Options): void {
  const { name, unit, ours, peer, runs, peerName } = measure;
  const ratio = ours / peer;
  const round = (value: number): number => Number(value.toPrecision(4));
  if (options.json) {
    console.log(
      JSON.stringify({
        name,
        unit,
        ours: round(ours),
        peer: round(peer),
        ratio: round(ratio),
        runs,
        peerName,
      }),
    );
    return;
  }
  console.log(
    `${name.padEnd(26)} ${round(ours)} ${unit} ÷ ${round(peer)} ${unit} (${peerName}) = ${ratio.toFixed(2)}${verdict(measure, ratio)}`,
  );
}

function verdict({ target, atLeast }: Measure, ratio: number): string {
  if (target !== undefined) return `  (at most ${target}: ${ratio <= target ? 'met' : 'MISSED'})`;
  return atLeast === undefined ? '' : `  (at least ${atLeast}: ${ratio >= atLeast ? 'met' : 'MISSED'})`;
}
