import type { ContainerSummary } from '../../proto/gen/stasis/stasis.ts';
import { MemoryKind } from '../../proto/gen/stasis/stasis.ts';
import { hasBranches, lineage } from '../lineage.ts';
import { containerName } from '../names.ts';
import type { Session } from '../session.ts';
import { table } from '../table.ts';
import { drawTree, hasUnicode } from '../tree.ts';
import { age, duration, milliseconds, size } from '../units.ts';
import { containerView } from '../view.ts';

/** `stasis ls [CONTAINER]` */
export async function ls(
  session: Session,
  container: string | undefined,
  options: { allNamespaces?: boolean },
): Promise<void> {
  const allNamespaces = options.allNamespaces ?? false;
  const { containers } = await session.stasis.list(
    {
      namespace: session.globals.namespace,
      container: container === undefined ? '' : containerName(container),
      allNamespaces,
    },
    session.options,
  );
  const sorted = containers.toSorted((a, b) => compare(a.namespace, b.namespace) || compare(a.name, b.name));
  const full = ({ namespace, name }: ContainerSummary): string =>
    allNamespaces ? `${namespace}/${name}` : name;
  session.print(
    () => ({ containers: sorted.map(containerView) }),
    () =>
      hasBranches(sorted) ? tree(session, sorted, allNamespaces) : plain(session, sorted, allNamespaces),
    () =>
      container === undefined
        ? sorted.map(full)
        : sorted.flatMap((one) => one.checkpoints.map(({ name }) => `${full(one)}@${name}`)),
  );
}

function tree(session: Session, containers: readonly ContainerSummary[], allNamespaces: boolean): string {
  const { env, now } = session.host;
  const unicode = hasUnicode(env);
  const options = { now: now(), allNamespaces, here: unicode ? '●' : '*' };
  return drawTree(lineage(containers, options), unicode);
}

function plain(session: Session, containers: readonly ContainerSummary[], allNamespaces: boolean): string {
  const now = session.host.now();
  const titles = ['CONTAINER', 'STATUS', 'CHECKPOINT', 'CREATED', 'MEMORY', 'UNIQUE', 'FROZEN', 'IMAGE'];
  const rows = containers.flatMap((one) => {
    const head = [one.name, one.exists ? one.status || 'no task' : 'removed'];
    const checkpoints = one.checkpoints
      .toSorted((a, b) => time(a.createdAt) - time(b.createdAt))
      .map((checkpoint) => [
        ...head,
        checkpoint.name,
        age(checkpoint.createdAt, now),
        checkpoint.memory === MemoryKind.MEMORY_NONE ? 'disk only' : size(checkpoint.memoryBytes),
        size(checkpoint.uniqueBytes),
        checkpoint.timings === undefined ? '-' : duration(checkpoint.timings.frozenNs),
        checkpoint.image || one.image || '-',
      ]);
    const lines =
      checkpoints.length > 0 ? checkpoints : [[...head, '-', '-', '-', '-', '-', one.image || '-']];
    return lines.map((line) => (allNamespaces ? [one.namespace, ...line] : line));
  });
  return table(allNamespaces ? ['NAMESPACE', ...titles] : titles, rows, ['MEMORY', 'UNIQUE', 'FROZEN']);
}

function time(at: Parameters<typeof milliseconds>[0] | undefined): number {
  return at === undefined ? 0 : milliseconds(at);
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
