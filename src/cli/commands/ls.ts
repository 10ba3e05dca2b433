import { NotFound } from '../../errors.ts';
import type { ContainerSummary } from '../../proto/gen/stasis/stasis.ts';
import { hasBranches, lineage, memoryText, relatives, statusText, storedText } from '../lineage.ts';
import { containerName } from '../names.ts';
import type { Session } from '../session.ts';
import { table } from '../table.ts';
import { drawTree, hasUnicode } from '../tree.ts';
import { age, duration, milliseconds, size } from '../../units.ts';
import { containerView } from '../view.ts';

/** `stasis ls [CONTAINER]` */
export async function ls(
  session: Session,
  container: string | undefined,
  options: { allNamespaces?: boolean },
): Promise<void> {
  const allNamespaces = options.allNamespaces ?? false;
  const { namespace } = session.globals;
  if (container !== undefined) containerName(container);
  // Of all containers, also where one is named: what was cloned from it is shown below it.
  const answer = await session.stasis.list({ namespace, container: '', allNamespaces }, session.options);
  const all = answer.containers.toSorted(
    (a, b) => compare(a.namespace, b.namespace) || compare(a.name, b.name),
  );
  const sorted = container === undefined ? all : all.filter(({ name }) => name === container);
  if (container !== undefined && sorted.length === 0) {
    throw new NotFound(
      `no container ${container} in ${allNamespaces ? 'any namespace' : `namespace ${namespace}`}`,
      {
        subject: container,
        reason: 'no-container',
        remedy: 'see what is there with `stasis ls`, or with `stasis ls --all-namespaces`',
      },
    );
  }
  for (const [why, silent] of Map.groupBy(sorted, ({ shimSilent }) => shimSilent))
    if (why !== '')
      session.warn(
        `the shim of ${silent.map(({ name }) => name).join(', ')} does not answer: ${why}; see: stasis shim ls`,
      );
  const full = ({ namespace, name }: ContainerSummary): string =>
    allNamespaces ? `${namespace}/${name}` : name;
  session.print(
    () => ({ containers: sorted.map(containerView) }),
    () => {
      const shown = container === undefined ? sorted : relatives(all, sorted);
      return hasBranches(shown) ? tree(session, shown, allNamespaces) : plain(session, shown, allNamespaces);
    },
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
  const sets = containers.some((one) => one.checkpoints.some(({ setId }) => setId !== ''));
  const set = (text: string): string[] => (sets ? [text] : []);
  const first = ['CONTAINER', 'STATUS', 'CHECKPOINT', ...set('SET')];
  const titles = [...first, 'CREATED', 'MEMORY', 'UNIQUE', 'FROZEN', 'IMAGE'];
  const rows = containers.flatMap((one) => {
    const head = [one.name, statusText(one)];
    const checkpoints = one.checkpoints
      .toSorted((a, b) => time(a.createdAt) - time(b.createdAt))
      .map((checkpoint) => [
        ...head,
        checkpoint.name,
        ...set(checkpoint.setId || '-'),
        age(checkpoint.createdAt, now),
        memoryText(checkpoint).replace(/^memory /, ''),
        storedText(checkpoint) || size(checkpoint.uniqueBytes),
        (checkpoint.timings?.frozenNs ?? 0n) === 0n || checkpoint.timings === undefined
          ? '-'
          : duration(checkpoint.timings.frozenNs),
        checkpoint.image || one.image || '-',
      ]);
    const lines =
      checkpoints.length > 0
        ? checkpoints
        : [[...head, '-', ...set('-'), '-', '-', '-', '-', one.image || '-']];
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
