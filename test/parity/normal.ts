import type { TaskEvent } from './recorder.ts';

/** What differs between two plays of a scenario by nature: the names, folders and processes of each. */
export interface Names {
  /** Container names and folders, with what stands for each. */
  readonly words: ReadonlyMap<string, string>;
  /** Process ids in the order in which they were heard of. */
  readonly pids: readonly number[];
}

/** A text without names, process ids, times, snapshot numbers and runtime names. */
export function normalText(text: string, { words, pids }: Names): string {
  let normal = text;
  const longestFirst = [...words].sort(([a], [b]) => b.length - a.length);
  for (const [word, mark] of longestFirst) normal = normal.replaceAll(word, mark);
  pids.forEach((pid, index) => {
    normal = normal.replace(new RegExp(`(?<![\\d.])${pid}(?![\\d.])`, 'g'), `<pid ${index + 1}>`);
  });
  return (
    normal
      // The end of its input that script(1) types, as the terminal echoes it: when, is chance.
      .replaceAll('^@', '')
      .replace(/\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| ?[+-]\d\d:?\d\d)?( UTC)?/g, '<time>')
      .replace(/current usage: \d+, peak usage: \d+/g, 'current usage: <n>')
      .replace(/\/snapshots\/\d+\//g, '/snapshots/<n>/')
      .replace(/io\.containerd\.(runc|stasis)\.v2/g, '<runtime>')
      .replace(/(\/fifos\/|\/containerd-mount|\/ctrd-checkpoint)\d+/g, '$1<n>')
      .replace(/\/\d{3,}\/(?=<c\d+>-(stdin|stdout|stderr))/g, '/<n>/')
      // containerd before 2.0 ends such messages so, on their way through its own errors.
      .replace(/(\s|\\n|\\t)*: unknown(?=\n|\\n|"|$)/g, '')
      .replace(/[ \t]+$/gm, '')
  );
}

/** Any value as one line: times become "set" or "unset", process ids and names their marks. */
export function normalValue(value: unknown, names: Names): string {
  const json = JSON.stringify(value, (key, item: unknown) => {
    if (typeof item === 'bigint') return item.toString();
    if (/(At|timestamp)$/.test(key)) return isZeroTime(item) ? 'unset' : 'set';
    if (key === 'pid' || key === 'pids') return normalPid(item, names);
    return item;
  });
  return normalText(json ?? 'undefined', { ...names, pids: [] });
}

export function normalEvent({ topic, fields }: TaskEvent, containerId: string, names: Names): string {
  return `${names.words.get(containerId) ?? containerId} ${topic} ${normalValue(fields, names)}`;
}

function normalPid(item: unknown, { pids }: Names): unknown {
  if (Array.isArray(item)) return item.map((pid: unknown) => normalPid(pid, { words: new Map(), pids }));
  if (item === 0) return 0;
  const index = pids.findIndex((pid) => pid === item);
  return index === -1 ? '<other pid>' : `<pid ${index + 1}>`;
}

/** containerd's "no time" is either missing or Go's zero time, the year 1. */
function isZeroTime(item: unknown): boolean {
  if (item === undefined || item === null) return true;
  if (typeof item !== 'object' || !('seconds' in item)) return false;
  return Number(item.seconds) <= 0;
}
