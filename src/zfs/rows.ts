import type { Property, PropertySource, Row } from './zfs.ts';

/** Rows of `zfs get -H -o name,property,value,source`: all of a dataset's rows follow each other. */
export function parseRows(output: string, types: ReadonlySet<string>): Row[] {
  const rows: Row[] = [];
  let name: string | undefined;
  let properties = new Map<string, Property>();
  for (const line of output.split('\n')) {
    const [dataset, property, value, from] = line.split('\t');
    if (dataset === undefined || property === undefined || value === undefined) continue;
    if (dataset !== name) {
      name = dataset;
      properties = new Map();
      const type = dataset.includes('@') ? 'snapshot' : 'filesystem';
      if (types.has(type)) rows.push({ name, type, properties });
    }
    const source = sourceOf(from ?? '-');
    if (value === '-' && source === 'none') continue; // ZFS's way to say that there is none
    if (property !== 'type') properties.set(property, { value, source });
  }
  return rows;
}

function sourceOf(text: string): PropertySource {
  if (text === '-') return 'none';
  if (text.startsWith('inherited from ')) return 'inherited';
  return text === 'local' || text === 'received' || text === 'default' || text === 'temporary'
    ? text
    : 'none';
}
