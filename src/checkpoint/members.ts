// Which containers belong to a set.
import { silentShim } from '../containerd/client.ts';
import { InvalidArgument, NotFound } from '../errors.ts';
import type { Container } from '../proto/gen/containerd/containers.ts';
import { Status } from '../proto/gen/containerd/task_types.ts';
import type { Host, Report } from './host.ts';
import { validateContainerId, validateNamespace } from './names.ts';
import { decodeSpec } from './spec.ts';

export interface Selection {
  readonly namespace: string;
  readonly containers: readonly string[];
  /** `key=value`, or `key` for any value. */
  readonly labels: readonly string[];
  /** Id of a CRI sandbox; empty for none. */
  readonly pod: string;
  /** Whether a container that does not run can be taken, too. */
  readonly diskOnly: boolean;
}

/** By which containerd's CRI plugin tells sandboxes from containers. */
const kindLabel = 'io.cri-containerd.kind';

/** In the spec of a sandbox and of its containers: the sandbox's id. */
const sandboxAnnotation = 'io.kubernetes.cri.sandbox-id';

/** Whether a container is a CRI sandbox, which stands for all of its pod. */
export function isSandbox({ labels }: Pick<Container, 'labels'>): boolean {
  return labels[kindLabel] === 'sandbox';
}

/**
 * The containers that are meant. Of those that a pod or labels name, the ones that do not run are left out, with a warning:
 * a pod keeps the containers that have done their part. One that is named is always among them.
 * @throws InvalidArgument for no selection, or several of them; NotFound where nothing fits
 */
export async function selectMembers(host: Host, selection: Selection, report: Report): Promise<string[]> {
  const { namespace, containers, labels, pod } = selection;
  validateNamespace(namespace);
  if ([containers.length > 0, labels.length > 0, pod !== ''].filter(Boolean).length !== 1) {
    throw new InvalidArgument('a set is of named containers, of a pod or of a label', {
      subject: namespace,
      reason: 'no-name',
      remedy: 'give one of the three: names, --pod ID or --label KEY=VALUE',
    });
  }
  if (pod !== '') validateContainerId(pod);
  const client = host.containerd.namespace(namespace);
  if (containers.length > 0) {
    // A sandbox that is named means its pod. Which there are is found out at once, without their specs being read.
    const filters = [`labels.${JSON.stringify(kindLabel)}==sandbox`];
    const sandboxes = (await client.containers.list({ filters })).containers.map(({ id }) => id);
    const named = containers.filter((id) => sandboxes.includes(id));
    const pods = await Promise.all(
      named.map((id) => selectMembers(host, { ...selection, containers: [], pod: id }, report)),
    );
    return [...new Set([...containers, ...pods.flat()])];
  }
  const filters = labels.length > 0 ? [labels.map(labelFilter).join(',')] : [];
  const [found, { tasks }] = await Promise.all([
    client.containers.list({ filters }),
    client.tasks.list({ filter: '' }),
  ]);
  const members = found.containers.filter((one) => pod === '' || sandboxOf(one) === pod);
  if (members.length === 0) throw nothingFits(selection);
  const silent = tasks.find(
    ({ id, status }) => status === Status.UNKNOWN && members.some((one) => one.id === id),
  );
  if (silent !== undefined && !selection.diskOnly) throw silentShim(silent.id);
  const runs = new Set(
    tasks.filter(({ status }) => status === Status.RUNNING || status === Status.PAUSED).map(({ id }) => id),
  );
  if (selection.diskOnly) return members.map(({ id }) => id);
  for (const { id } of members) if (!runs.has(id)) report.warn(`${id} does not run, and is left out`);
  const running = members.filter(({ id }) => runs.has(id)).map(({ id }) => id);
  if (running.length === 0) throw nothingFits(selection);
  return running;
}

function labelFilter(label: string): string {
  const [, key = '', value] = /^([^=]+)(?:=(.*))?$/s.exec(label) ?? [];
  if (key === '') {
    throw new InvalidArgument(`${JSON.stringify(label)} is no label`, {
      subject: label,
      reason: 'bad-label',
      remedy: 'write KEY=VALUE, or KEY for any value',
    });
  }
  const field = `labels.${JSON.stringify(key)}`;
  return value === undefined ? field : `${field}==${JSON.stringify(value)}`;
}

/** Id of the sandbox that a container belongs to, which a sandbox does to itself. A spec that is not one has none. */
export function sandboxOf(container: Container): string | undefined {
  try {
    const { annotations } = decodeSpec(container.spec, container.id);
    const id: unknown = (annotations as Record<string, unknown> | undefined)?.[sandboxAnnotation];
    return typeof id === 'string' ? id : undefined;
  } catch {
    return undefined;
  }
}

function nothingFits({ namespace, labels, pod }: Selection): NotFound {
  const what = pod !== '' ? `is of the pod ${pod}` : `has the label ${labels.join(' and ')}`;
  return new NotFound(`no running container in namespace ${namespace} ${what}`, {
    subject: pod !== '' ? pod : labels.join(','),
    reason: 'no-members',
    remedy: `see what there is: ctr --namespace ${namespace} containers ls`,
  });
}
