import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { appendFileSync, copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { defaultSpec } from '../../../src/cli/default-spec.ts';
import type { Containerd, NamespaceClient } from '../../../src/containerd/client.ts';
import { downloadContent, uploadContent } from '../../../src/containerd/content.ts';
import type { Descriptor } from '../../../src/proto/gen/containerd/descriptor.ts';
import { CheckpointOptions, Options } from '../../../src/proto/gen/containerd/runc_options.ts';
import { Status } from '../../../src/proto/gen/containerd/task_types.ts';
import { mount, unmount } from '../../../src/sys/mount.ts';
import { image, must } from '../support/stack.ts';

const SPEC_URL = 'types.containerd.io/opencontainers/runtime-spec/1/Spec';
const CRIU_TAR = 'application/vnd.containerd.container.criu.checkpoint.criu.tar';
const LAYER = 'application/vnd.oci.image.layer.v1.tar+gzip';
const snapshotter = 'stasis';

export interface NerdctlContainer {
  readonly name: string;
  readonly args: string[];
  readonly cgroupsPath?: string;
  /** Seconds that its network takes to be set up. */
  readonly networkSeconds?: number;
}

/**
 * Stands in for nerdctl: makes, through containerd's API, the calls that its commands make, in their order. To a runtime of
 * another name than containerd's own it sends no options at all.
 */
export class Nerdctl {
  readonly #containerd: Containerd;
  readonly #namespace: string;
  readonly #api: NamespaceClient;
  readonly #runtime: string;
  readonly #folder: string;
  readonly #parent: string;

  /**
   * @param folder for hooks, logs and checkpoints
   * @param parent chain id of the image's layers
   */
  constructor(
    containerd: Containerd,
    runtime: string,
    folder: string,
    parent: string,
    namespace = 'default',
  ) {
    this.#containerd = containerd;
    this.#namespace = namespace;
    this.#api = containerd.namespace(namespace);
    this.#runtime = runtime;
    this.#folder = folder;
    this.#parent = parent;
    writeFileSync(join(folder, 'logger'), LOGGER, { mode: 0o755 });
    writeFileSync(join(folder, 'hook'), HOOK, { mode: 0o755 });
  }

  /** `create`: a view of the image that is left to the collector, the container's snapshot, its record with hooks. */
  async create({ name, args, cgroupsPath, networkSeconds = 0 }: NerdctlContainer): Promise<void> {
    const lookedAt = join(this.#folder, `view-${name}`);
    const parent = this.#parent;
    await this.#containerd.withLease(this.#namespace, async (leased) => {
      const { mounts } = await leased.snapshots.view({ snapshotter, key: lookedAt, parent, labels: {} });
      mkdirSync(lookedAt);
      for (const { type, source, options } of mounts)
        await mount({ type, source, target: lookedAt, options });
      await unmount(lookedAt);
      rmSync(lookedAt, { recursive: true });
    });
    const spec = defaultSpec(args);
    const labels = { 'nerdctl/namespace': this.#namespace, 'nerdctl/name': name };
    const hook = (kind: string) => ({
      path: join(this.#folder, 'hook'),
      args: ['nerdctl', this.#hooksOf(name), kind, String(networkSeconds)],
      env: Object.entries(process.env).map(([key, value]) => `${key}=${value ?? ''}`),
    });
    const whole = {
      ...spec,
      annotations: labels,
      hooks: { createRuntime: [hook('createRuntime')], poststop: [hook('poststop')] },
      linux: { ...spec.linux, cgroupsPath: cgroupsPath ?? `/${this.#namespace}/${name}` },
    };
    // Under a lease, as until the record names it nothing else keeps the snapshot from the collector.
    await this.#containerd.withLease(this.#namespace, async ({ snapshots, containers }) => {
      await snapshots.prepare({ snapshotter, key: name, parent, labels: {} });
      await containers.create({
        container: {
          ...{ id: name, labels, image, snapshotter, snapshotKey: name, sandbox: '', extensions: {} },
          runtime: { name: this.#runtime, options: this.#options },
          spec: { typeUrl: SPEC_URL, value: Buffer.from(JSON.stringify(whole)) },
          ...{ createdAt: undefined, updatedAt: undefined },
        },
      });
    });
  }

  async run(container: NerdctlContainer): Promise<void> {
    await this.create(container);
    await this.start(container.name);
  }

  /** `start`: an old task goes, a new one comes, whose output goes to the logger; with a checkpoint it is restored. */
  async start(name: string, checkpoint?: string): Promise<void> {
    const { tasks, snapshots } = this.#api;
    const old = await tasks.get({ containerId: name, execId: '' }).catch(() => undefined);
    if (old !== undefined) await tasks.delete({ containerId: name });
    await this.#containerd.withLease(this.#namespace, async (leased) => {
      const blob = checkpoint === undefined ? undefined : await this.#pack(leased, checkpoint);
      const { mounts } = await snapshots.mounts({ snapshotter, key: name });
      const address = `binary://${this.#folder}/logger?_NERDCTL_INTERNAL_LOGGING=${this.#logOf(name)}`;
      await tasks.create({
        ...{ containerId: name, rootfs: mounts, stdin: '', stdout: address, stderr: address },
        ...{ terminal: false, checkpoint: blob, options: this.#options, runtimePath: '' },
      });
      if (blob !== undefined) await leased.content.delete({ digest: blob.digest });
    });
    void tasks.wait({ containerId: name, execId: '' }).catch(() => undefined);
    await tasks.start({ containerId: name, execId: '' });
  }

  /** `stop`: a signal and a wait. The task is left as it is. */
  async stop(name: string, signal = 9): Promise<void> {
    const { tasks } = this.#api;
    const { process: found } = await tasks.get({ containerId: name, execId: '' });
    if (found?.status !== Status.RUNNING) return;
    const ended = tasks.wait({ containerId: name, execId: '' }, { timeoutMs: 20_000 });
    await tasks.kill({ containerId: name, execId: '', signal, all: false });
    await ended;
  }

  /** `rm -f`; what is not there is no error. */
  async remove(name: string): Promise<void> {
    const { tasks, containers, snapshots } = this.#api;
    await this.stop(name).catch(() => undefined);
    await tasks.delete({ containerId: name }).catch(() => undefined);
    await containers.delete({ id: name }).catch(() => undefined);
    await snapshots.remove({ snapshotter, key: name }).catch(() => undefined);
  }

  /** `cp`, in either direction: the running container's snapshot is mounted a second time. */
  async copy(name: string, inside: string, direction: 'in' | 'out', outside: string): Promise<void> {
    const { mounts } = await this.#api.snapshots.mounts({ snapshotter, key: name });
    const target = join(this.#folder, `cp-${name}`);
    mkdirSync(target);
    try {
      for (const { type, source, options } of mounts) {
        const access = direction === 'out' ? [...options, 'ro'] : options;
        await mount({ type, source, target, options: access });
      }
      const there = join(target, inside);
      if (direction === 'in') copyFileSync(outside, there);
      else copyFileSync(there, outside);
    } finally {
      await unmount(target);
      rmSync(target, { recursive: true });
    }
  }

  /** `commit`: a diff under a pause. Answers the names in the new layer. */
  async commit(name: string): Promise<string[]> {
    const { tasks } = this.#api;
    return this.#containerd.withLease(this.#namespace, async (leased) => {
      await tasks.pause({ containerId: name });
      let layer: Descriptor | undefined;
      try {
        layer = await this.#diff(leased, name);
      } finally {
        await tasks.resume({ containerId: name });
      }
      const file = join(this.#folder, `layer-${name}`);
      writeFileSync(file, '');
      for await (const piece of downloadContent(leased, layer?.digest ?? '')) appendFileSync(file, piece);
      return (await must('tar', ['-tzf', file])).split('\n').filter((line) => line !== '');
    });
  }

  /** `checkpoint create`: Pause, Checkpoint, diff, Resume; the dump is unpacked into a folder, the diff dropped. */
  async checkpoint(name: string, as: string, leaveRunning = true): Promise<void> {
    const { tasks } = this.#api;
    await this.#containerd.withLease(this.#namespace, async (leased) => {
      await tasks.pause({ containerId: name });
      let descriptors: Descriptor[];
      try {
        const options = this.#checkpointOptions(!leaveRunning);
        const request = { containerId: name, parentCheckpoint: '', options };
        ({ descriptors } = await leased.tasks.checkpoint(request));
        await this.#diff(leased, name);
      } finally {
        // Without a look at how it went, as the task may have ended.
        await tasks.resume({ containerId: name }).catch(() => undefined);
      }
      const dump = descriptors.find(({ mediaType }) => mediaType === CRIU_TAR);
      if (dump === undefined) throw new Error('invalid checkpoint: it has no dump');
      const folder = join(this.#folder, as);
      mkdirSync(folder, { mode: 0o700 });
      const tar = spawn('tar', ['-xC', folder], { stdio: ['pipe', 'ignore', 'inherit'] });
      for await (const piece of downloadContent(leased, dump.digest)) tar.stdin.write(piece);
      tar.stdin.end();
      await once(tar, 'close');
    });
  }

  /** What its hooks were told, in their order: kind, pid, and the network namespace that there was. */
  hooks(name: string): { kind: string; pid: number; network: string }[] {
    const lines = readFileSync(this.#hooksOf(name), 'utf8').trim().split('\n');
    return lines.map((line) => {
      const [kind = '', pid = '', network = ''] = line.split(' ');
      return { kind, pid: Number(pid), network };
    });
  }

  /** What its loggers wrote: a line for each of their starts, and the output. */
  log(name: string): string[] {
    return readFileSync(this.#logOf(name), 'utf8').split('\n');
  }

  #hooksOf(name: string): string {
    return join(this.#folder, `hooks-${name}`);
  }

  #logOf(name: string): string {
    return join(this.#folder, `log-${name}`);
  }

  get #options() {
    if (!this.#runtime.startsWith('io.containerd.runc.')) return undefined;
    const value = Buffer.from(Options.encode(Options.decode(new Uint8Array())).finish());
    return { typeUrl: 'containerd.runc.v1.Options', value };
  }

  #checkpointOptions(exit: boolean) {
    if (this.#runtime !== 'io.containerd.runc.v2') return undefined;
    const options = { ...CheckpointOptions.decode(new Uint8Array()), exit };
    const value = Buffer.from(CheckpointOptions.encode(options).finish());
    return { typeUrl: 'containerd.runc.v1.CheckpointOptions', value };
  }

  async #diff(leased: NamespaceClient, name: string): Promise<Descriptor | undefined> {
    const { snapshots, diff } = leased;
    const { info } = await snapshots.stat({ snapshotter, key: name });
    const key = `${name}-parent-view-${process.hrtime.bigint()}`;
    const parent = info?.parent ?? '';
    const { mounts: left } = await snapshots.view({ snapshotter, key, parent, labels: {} });
    const { mounts: right } = await snapshots.mounts({ snapshotter, key: name });
    const rest = { mediaType: LAYER, ref: `diff-${key}`, labels: {}, sourceDateEpoch: undefined };
    const answer = await diff.diff({ left, right, ...rest });
    await snapshots.remove({ snapshotter, key });
    return answer.diff;
  }

  /** The folder of a checkpoint as a blob of the content store. */
  async #pack(leased: NamespaceClient, as: string): Promise<Descriptor> {
    const file = join(this.#folder, `${as}.tar`);
    await must('tar', ['-cf', file, '-C', join(this.#folder, as), '.']);
    const bytes = readFileSync(file);
    const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
    const blob = { mediaType: CRIU_TAR, digest, size: BigInt(bytes.length), annotations: {} };
    async function* source(): AsyncIterable<Uint8Array> {
      yield Promise.resolve(bytes);
    }
    await uploadContent(leased, blob, source());
    return blob;
  }
}

/** Both streams go to the file that the address names; it is ready when it closes descriptor 5. */
const LOGGER = `#!/bin/sh
[ "$1" = _NERDCTL_INTERNAL_LOGGING ] || exit 1
echo "logger of $CONTAINER_NAMESPACE/$CONTAINER_ID" >>"$2"
cat <&3 >>"$2" 5>&- &
cat <&4 >>"$2" 5>&- &
exec 3>&- 4>&- 5>&-
wait
`;

const HOOK = `#!/bin/sh
pid=$(sed -n 's/.*"pid": *\\([0-9]*\\).*/\\1/p' | head -n 1)
[ "$2" != createRuntime ] || sleep "$3"
echo "$2 $pid $(readlink "/proc/$pid/ns/net")" >>"$1"
`;
