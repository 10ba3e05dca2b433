import { findContainer, findTask } from '../containerd/client.ts';
import { type Host, runtimeName, snapshotterName } from '../checkpoint/host.ts';
import { hasDisk } from '../checkpoint/find.ts';
import { missingContainer } from '../checkpoint/missing.ts';
import { validateContainerId, validateNamespace } from '../checkpoint/names.ts';
import { runtimeBinaryOf } from '../checkpoint/runtime-choice.ts';
import { findEngine } from '../checkpoint/shim-client.ts';
import { decodeSpec } from '../checkpoint/spec.ts';
import type { Container } from '../proto/gen/containerd/containers.ts';
import { ProcessDetails } from '../proto/gen/containerd/runc_options.ts';
import { type Process, Status } from '../proto/gen/containerd/task_types.ts';
import { hostObstacles, runtimeObstacles } from './checks/host.ts';
import { diagnose } from './diagnose.ts';
import type { Obstacle } from './obstacle.ts';

/**
 * What is in the way of checkpoints on this host and, with a container, of that one's. Freezes nothing.
 * @throws NotFound, InvalidArgument, Unavailable
 */
export async function examine(host: Host, namespace: string, container: string): Promise<Obstacle[]> {
  if (container === '') return hostObstacles(host);
  validateNamespace(namespace);
  validateContainerId(container);
  const client = host.containerd.namespace(namespace);
  const [record, task] = await Promise.all([findContainer(client, container), findTask(client, container)]);
  if (record === undefined) throw await missingContainer(host, namespace, container);
  const engine = await findEngine(host.config.daemon.run_dir, namespace, container);
  engine?.close();
  const found = await Promise.all([
    hostObstacles(host),
    runtimeBinaryOf(host, record).then((binary) => runtimeObstacles(host, binary)),
    examineTask(host, namespace, record, task),
  ]);
  // What the host could do better matters for the host alone.
  const all = found
    .flat()
    .filter(({ severity, subject }) => severity === 'error' || !subject.startsWith('host, '));
  if (!isAlive(task)) {
    all.unshift({
      name: 'not-running',
      severity: 'error',
      subject: `container ${container}`,
      message: 'is not running, so it has no memory that could be dumped',
      remedy: `start it, or keep its disk alone with: stasis checkpoint ${container} --disk-only`,
    });
  } else if (engine === undefined) {
    all.unshift({
      name: 'runtime',
      severity: 'error',
      subject: `container ${container}`,
      message: `runs under ${record.runtime?.name ?? 'an unknown runtime'}: only tasks of ${runtimeName} can be dumped`,
      remedy: `create it with the runtime ${runtimeName}`,
    });
  }
  const lost = record.snapshotter === snapshotterName && !(await hasDisk(host, namespace, record));
  if (lost) {
    all.unshift({
      name: 'disk',
      severity: 'error',
      subject: `container ${container}`,
      message: `its disk is not in ${host.root}: its snapshot was removed, or belongs to another containerd`,
      remedy: 'see stasis ls --all-namespaces for disks that other hosts or databases left, and stasis adopt',
    });
  }
  return all;
}

/** The obstacles in a container's processes; none in one that has none. */
export async function examineTask(
  host: Pick<Host, 'containerd'>,
  namespace: string,
  record: Container,
  task: Process | undefined,
): Promise<Obstacle[]> {
  if (task === undefined || !isAlive(task)) return [];
  const { processes } = await host.containerd.namespace(namespace).tasks.listPids({ containerId: record.id });
  const execs = new Map<number, string>();
  for (const { pid, info } of processes) {
    const id = info === undefined ? '' : ProcessDetails.decode(info.value).execId;
    if (id !== '') execs.set(pid, id);
  }
  return diagnose({
    id: record.id,
    init: task.pid,
    pids: processes.map(({ pid }) => pid),
    execs,
    spec: decodeSpec(record.spec, record.id),
  });
}

function isAlive(task: Process | undefined): task is Process {
  return task?.status === Status.RUNNING || task?.status === Status.PAUSED;
}
