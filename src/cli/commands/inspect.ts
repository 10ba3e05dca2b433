import type { Filling, InspectResponse, Timings } from '../../proto/gen/stasis/stasis.ts';
import { checkpointName, containerName } from '../names.ts';
import type { Session } from '../session.ts';
import { printable } from '../text.ts';
import { duration, rfc3339, size } from '../../units.ts';
import { checkpointView, containerView } from '../view.ts';
import { checkpointText } from './checkpoint.ts';

/** `stasis inspect CONTAINER [N]` */
export async function inspect(session: Session, container: string, name: string | undefined): Promise<void> {
  const answer = await session.stasis.inspect(
    {
      namespace: session.globals.namespace,
      container: containerName(container),
      checkpoint: name === undefined ? '' : checkpointName(name),
    },
    session.options,
  );
  session.print(
    () => view(answer),
    () =>
      facts(answer)
        .map(([key, value]) => `${`${key}:`.padEnd(14)} ${printable(value)}\n`)
        .join(''),
    () => (name === undefined ? (answer.container?.checkpoints ?? []).map((one) => one.name) : [name]),
  );
}

function view({ container, checkpoint, specJson, labels, datasetMemory, files }: InspectResponse) {
  return {
    container: container === undefined ? null : containerView(container),
    checkpoint: checkpoint === undefined ? null : checkpointView(checkpoint),
    spec: parsed(specJson),
    labels,
    datasetMemory: datasetMemory || null,
    files: files.map(({ name, size: bytes }) => ({ name, size: Number(bytes) })),
  };
}

/** A spec that cannot be read is shown as it is: it may be what the user is looking for. */
function parsed(json: string): unknown {
  if (json === '') return null;
  try {
    return JSON.parse(json) as unknown;
  } catch {
    return json;
  }
}

function facts(answer: InspectResponse): [string, string][] {
  const { container, checkpoint } = answer;
  const lines: [string, string | undefined][] = [];
  if (container !== undefined) {
    const pid = container.pid === 0 ? '' : `, pid ${container.pid}`;
    lines.push(
      ['container', container.name],
      ['namespace', container.namespace],
      ['status', container.exists ? `${container.status || 'no task'}${pid}` : 'removed'],
      [
        'shim',
        container.shimSilent === '' ? '' : `does not answer: ${container.shimSilent}; see: stasis shim ls`,
      ],
      ['memory', container.filling === undefined ? '' : fillingText(container.filling)],
      ['image', checkpoint?.image || container.image],
      ['snapshotter', container.snapshotter],
    );
    for (const disk of container.disks) {
      const origin = disk.originCheckpointId === '' ? '' : `, from ${disk.originCheckpointId}`;
      lines.push([
        disk.current ? 'disk' : 'former disk',
        `${disk.dataset}, ${size(disk.usedBytes)}${origin}`,
      ]);
    }
  }
  if (checkpoint === undefined) {
    for (const one of container?.checkpoints ?? []) lines.push(['checkpoint', checkpointText(one)]);
  } else {
    lines.push(
      ['checkpoint', checkpointText(checkpoint)],
      ['id', checkpoint.id],
      ['created', rfc3339(checkpoint.createdAt) ?? ''],
      ['snapshot', checkpoint.snapshot],
      ['memory in', answer.datasetMemory],
      ['no memory', checkpoint.memoryError],
      ['written', checkpoint.writtenBytes < 0n ? '' : size(checkpoint.writtenBytes)],
      ['unchanged', checkpoint.unchangedSince === '' ? '' : `since ${checkpoint.unchangedSince}`],
      ['unique', size(checkpoint.uniqueBytes)],
      ['origin', checkpoint.origin],
      ['set', checkpoint.setId],
      ['runtime', checkpoint.runtime],
      ['times', checkpoint.timings === undefined ? '' : timesText(checkpoint.timings)],
    );
  }
  for (const [key, value] of Object.entries(answer.labels)) lines.push(['label', `${key}=${value}`]);
  for (const file of answer.files) lines.push(['file', `${file.name}, ${size(file.size)}`]);
  return lines.filter((line): line is [string, string] => line[1] !== undefined && line[1] !== '');
}

/** How far the memory is that a container was restored without. */
export function fillingText(filling: Filling): string {
  const { checkpoint, doneBytes, totalBytes, stalledSince, lost } = filling;
  if (lost !== '') return `lost: ${lost}; it was brought in from ${checkpoint}`;
  const waits = stalledSince === undefined ? '' : `, nothing has come since ${rfc3339(stalledSince) ?? ''}`;
  return `still coming in from ${checkpoint}, ${size(doneBytes)} of ${size(totalBytes)}${waits}`;
}

function timesText(timings: Timings): string {
  const parts = {
    freeze: timings.freezeNs,
    dump: timings.dumpNs,
    sync: timings.syncNs,
    snapshot: timings.snapshotNs,
    frozen: timings.frozenNs,
    store: timings.storeNs,
    total: timings.totalNs,
  };
  return Object.entries(parts)
    .map(([name, value]) => `${name} ${duration(value)}`)
    .join(', ');
}
