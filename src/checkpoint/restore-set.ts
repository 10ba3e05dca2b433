// Several containers brought back, each to its own checkpoint.
import { InvalidArgument } from '../errors.ts';
import type { Host, Report } from './host.ts';
import { validateCheckpointName, validateContainerId, validateNamespace } from './names.ts';
import type { Paging } from './paging.ts';
import { restore, type Restored } from './restore.ts';
import { noSuchSet } from './unfinished-sets.ts';

export interface RestoreSetRequest {
  readonly namespace: string;
  /** Empty: the containers, wherever their checkpoints come from. */
  readonly set: string;
  /** With a set: only these of its members; empty: all. */
  readonly containers: readonly string[];
  /** Without a set: the name of each one's checkpoint; empty: the latest. */
  readonly checkpoint: string;
  readonly requireMemory: boolean;
  readonly paging: Paging;
  readonly signal: AbortSignal;
}

export interface Outcomes {
  readonly restored: (restored: Restored) => void;
  readonly failed: (container: string, checkpoint: string, error: unknown) => void;
}

/**
 * Rewinds containers one after another. What fails leaves its container as it was, and is told; the others are restored all
 * the same. The signal ends it between two of them, or undoes the one under way.
 * @throws NotFound for a set that is not there, or a container that is not of it
 */
export async function restoreSet(
  host: Host,
  request: RestoreSetRequest,
  tell: Outcomes,
  report: Report,
): Promise<void> {
  const { namespace, signal, requireMemory, paging } = request;
  const wanted = choose(host, request);
  for (const [index, { container, checkpoint }] of wanted.entries()) {
    signal.throwIfAborted();
    report.phase(`restoring ${container}`, index, wanted.length);
    const warn = (message: string): void => report.warn(`${container}: ${message}`);
    try {
      const one = { namespace, container, checkpoint, as: '', requireMemory, paging, signal };
      tell.restored(await restore(host, one, { phase: () => undefined, warn }));
    } catch (error) {
      signal.throwIfAborted();
      tell.failed(container, checkpoint, error);
    }
  }
}

function choose(
  host: Host,
  { namespace, set, containers, checkpoint }: RestoreSetRequest,
): { container: string; checkpoint: string }[] {
  validateNamespace(namespace);
  for (const container of containers) validateContainerId(container);
  for (const name of [set, checkpoint]) if (name !== '') validateCheckpointName(name);
  const named = [...new Set(containers)].sort();
  if (set === '') {
    if (named.length > 0) return named.map((container) => ({ container, checkpoint }));
    throw new InvalidArgument('no set and no container named', { subject: namespace, reason: 'no-name' });
  }
  const members = host.catalog.ofSet(namespace, set).map(({ container }) => container);
  if (members.length === 0) throw noSuchSet(namespace, set, setsOf(host, namespace));
  const stranger = named.find((container) => !members.includes(container));
  if (stranger !== undefined) {
    throw new InvalidArgument(`container ${stranger} is not in the set ${set}`, {
      subject: stranger,
      reason: 'not-in-the-set',
      remedy: `it has ${members.join(', ')}`,
    });
  }
  return (named.length > 0 ? named : members).map((container) => ({ container, checkpoint: set }));
}

function setsOf(host: Host, namespace: string): string[] {
  const entries = [...host.catalog.all()].filter(
    (entry) => entry.set !== '' && entry.namespace === namespace,
  );
  return [...new Set(entries.map(({ name }) => name))].sort();
}
