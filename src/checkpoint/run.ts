import { readFile, realpath, stat } from 'node:fs/promises';
import { isAbsolute, join } from 'node:path';
import { FailedPrecondition, InvalidArgument, messageOf, ResourceExhausted } from '../errors.ts';
import { untilBack } from '../containerd/away.ts';
import type { Container } from '../proto/gen/containerd/containers.ts';
import { exec } from '../sys/command.ts';
import { assertFreeName, removeContainer } from './create.ts';
import { type Host, lockKey, type Report, runtimeName, snapshotterName } from './host.ts';
import { validateContainerId, validateNamespace } from './names.ts';
import type { Restored } from './restore.ts';
import { encodeSpec, type OciSpec } from './spec.ts';
import { ioOf, startTask } from './start.ts';
import { Steps } from './steps.ts';

const COPY_TIMEOUT_MS = 3600_000;

export interface RunRequest {
  readonly namespace: string;
  readonly id: string;
  /** Absolute path of the bundle. */
  readonly bundle: string;
  readonly signal: AbortSignal;
}

/**
 * Creates and starts a container from an OCI bundle in one go. Its root file system is copied into a dataset of
 * its own, so that it can be checkpointed and cloned; the bundle stays as it is.
 */
export async function run(host: Host, request: RunRequest, report: Report): Promise<Restored> {
  validateNamespace(request.namespace);
  validateContainerId(request.id);
  const begin = process.hrtime.bigint();
  const { spec, rootfs } = await readBundle(request.bundle);
  const { namespace, id } = request;
  return host.locks.run(
    lockKey(namespace, id),
    async () => {
      const client = host.containerd.namespace(namespace);
      await assertFreeName(client, id);
      using pending = host.pending.open({
        namespace,
        container: id,
        snapshotter: snapshotterName,
        snapshotKey: id,
      });
      await using steps = new Steps(host.log, untilBack());
      steps.undo('remove the unfinished container', async () => {
        await removeContainer(host, namespace, id, snapshotterName);
        pending.done();
      });
      const container: Container = {
        id,
        labels: {},
        image: '',
        runtime: { name: runtimeName, options: undefined },
        spec: encodeSpec({
          ...spec,
          root: { ...spec.root, path: 'rootfs' },
          linux: { ...spec.linux, cgroupsPath: spec.linux?.cgroupsPath ?? `/${namespace}/${id}` },
        }),
        snapshotter: snapshotterName,
        snapshotKey: id,
        createdAt: undefined,
        updatedAt: undefined,
        extensions: {},
        sandbox: '',
      };
      const mounts = await host.containerd.withLease(namespace, async (leased) => {
        const prepared = await leased.snapshots.prepare({
          snapshotter: snapshotterName,
          key: id,
          parent: '',
          labels: {},
        });
        report.phase('copying the root file system');
        await copyTree(rootfs, diskOf(host, namespace, id), request.signal);
        await leased.containers.create({ container });
        return prepared.mounts;
      });
      const copied = process.hrtime.bigint();
      const io = await ioOf(undefined, spec.process?.terminal ?? false);
      const task = await startTask(client, container, { mounts, io, imageDir: undefined }).catch(
        (error: unknown) => {
          throw explainCommand(error, request.bundle);
        },
      );
      request.signal.throwIfAborted();
      steps.commit();
      pending.done();
      const end = process.hrtime.bigint();
      return {
        container: id,
        checkpoint: '',
        memory: false,
        lazy: false,
        totalNs: Number(end - begin),
        stopNs: 0,
        diskNs: Number(copied - begin),
        ...task,
      };
    },
    request.signal,
  );
}

/** What runc and crun say of a program that is not in the root file system, or is none. */
const noCommand = /exec: "([^"]+)": (.+?)(?:: unknown)?$|executable file [`'"]?([^`'"\s]+)[`'"]? not found/;

/** A command that cannot be started is a slip in the bundle, not a failure of ours. */
export function explainCommand(error: unknown, bundle: string): unknown {
  const [, named, why = 'not found', ofCrun] = noCommand.exec(messageOf(error)) ?? [];
  const command = named ?? ofCrun;
  if (command === undefined) return error;
  return new InvalidArgument(`the command ${command} of bundle ${bundle} cannot be started: ${why}`, {
    subject: bundle,
    reason: 'bad-bundle',
    remedy: `correct process.args in ${join(bundle, 'config.json')}, or put the program into its root file system`,
  });
}

function diskOf(host: Host, namespace: string, id: string): string {
  const disk = host.store.findContainer(namespace, id);
  if (disk === undefined) {
    throw new FailedPrecondition(
      `containerd's snapshotter ${snapshotterName} does not lead to this stasisd`,
      {
        subject: id,
        reason: 'snapshotter-elsewhere',
        remedy:
          "see stasis info: the proxy plugin in containerd's configuration must name this stasisd's socket",
      },
    );
  }
  return disk.rootfs;
}

async function readBundle(bundle: string): Promise<{ spec: OciSpec; rootfs: string }> {
  const bad = (message: string, cause?: unknown): InvalidArgument =>
    new InvalidArgument(message, {
      subject: bundle,
      cause,
      reason: 'bad-bundle',
      remedy: 'a bundle is a folder with config.json (see stasis spec) and the root file system it names',
    });
  if (!isAbsolute(bundle)) throw bad(`the bundle ${bundle} is not an absolute path`);
  let spec: OciSpec;
  try {
    const parsed: unknown = JSON.parse(await readFile(join(bundle, 'config.json'), 'utf8'));
    if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed))
      throw new Error('not a JSON object');
    spec = parsed as OciSpec;
  } catch (error) {
    throw bad(`${join(bundle, 'config.json')} cannot be read: ${messageOf(error)}`, error);
  }
  const named = spec.root?.path;
  if (typeof named !== 'string' || named === '')
    throw bad(`${join(bundle, 'config.json')} names no root.path`);
  if (!Array.isArray(spec.process?.args) || spec.process.args.length === 0) {
    throw bad(`${join(bundle, 'config.json')} names no process.args`);
  }
  const rootfs = await realpath(isAbsolute(named) ? named : join(bundle, named)).catch(() => undefined);
  if (rootfs === undefined || !(await stat(rootfs)).isDirectory()) {
    throw bad(`the root file system ${named} of bundle ${bundle} is not a folder`);
  }
  return { spec, rootfs };
}

/** Copies a tree as it is: owners, modes, times, hard links, sparse files, devices, extended attributes. */
async function copyTree(from: string, to: string, signal: AbortSignal): Promise<void> {
  const result = await exec('cp', ['-a', '--sparse=auto', '--', `${from}/.`, to], {
    signal,
    timeoutMs: COPY_TIMEOUT_MS,
  });
  if (result.exitCode === 0) return;
  signal.throwIfAborted();
  const why = result.stderr.trim().split('\n').at(-1) ?? '';
  const kind = /No space left|quota exceeded/i.test(why) ? ResourceExhausted : FailedPrecondition;
  throw new kind(`the root file system ${from} cannot be copied: ${why}`, {
    subject: from,
    reason: 'copy-failed',
  });
}
