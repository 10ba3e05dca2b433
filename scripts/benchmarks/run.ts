// Runs groups of benchmarks: see scripts/bench.
import { parseArgs } from 'node:util';
import type { Options } from './measure.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { json: { type: 'boolean' }, runs: { type: 'string' }, only: { type: 'string' } },
});
const options: Options = {
  json: values.json ?? false,
  runs: values.runs === undefined ? undefined : Number(values.runs),
  only: values.only ?? '',
};
for (const group of positionals.length === 0 ? ['main'] : positionals) {
  const module = (await import(`./${group}.ts`)) as { default: (options: Options) => Promise<void> };
  await module.default(options);
}
