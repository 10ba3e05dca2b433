import { readdirSync } from 'node:fs';
import { spawn } from 'node:child_process';
import { Code, codeOf } from '../../src/errors.ts';
import { exec as runProgram } from '../../src/sys/command.ts';
import type { Descriptor } from '../../src/proto/gen/containerd/descriptor.ts';
import { Metrics as MetricsV1 } from '../../src/proto/gen/containerd/cgroups_v1.ts';
import { Metrics as MetricsV2 } from '../../src/proto/gen/containerd/cgroups_v2.ts';
import { CheckpointOptions, ProcessDetails } from '../../src/proto/gen/containerd/runc_options.ts';
import { until } from '../system/support/stack.ts';
import { Recorded } from './recorded.ts';

/** Goes on, as one process all the time. */
export const IDLE = 'exec sleep 600';
/** The same for a container that is checkpointed, which ends a busybox sleep early. */
export const TICK = `exec perl -e 'select(undef, undef, undef, 0.05) while 1'`;
/** Goes on, and hears of signals and children between two programs that it starts. */
export const LOOP = 'while true; do sleep 0.1; done';

interface Stdio {
  stdin: string;
  stdout: string;
  stderr: string;
  terminal: boolean;
}
const NO_STDIO: Stdio = { stdin: '', stdout: '', stderr: '', terminal: false };

/** Whether a worker's end may cut off what is asked. */
const isKilled = process.env['STASIS_TEST_KILL'] !== undefined;

const SPEC = 'types.containerd.io/opencontainers/runtime-spec/1/';

/** The moves of which scenarios are made: played once for each runtime, on a stage of its own. */
export class Stage extends Recorded {
  /** `ctr run --rm` of a shell script, to its end. */
  async run(script: string, extra: readonly string[] = [], options: { input?: string } = {}): Promise<void> {
    await this.runProgram(['/bin/sh', '-c', script], extra, options);
  }

  async runProgram(words: string[], extra: readonly string[] = [], options: { input?: string } = {}) {
    const name = this.name();
    const flags = this.flags(name, ['--rm', '--fifo-dir', this.fifos, ...extra]);
    const args = ['run', ...flags, this.image, name, ...words];
    if (options.input === undefined) await this.program('ctr', args);
    // ctr that meets the end of its input before Create is answered never tells anybody: it has to come later.
    else await this.program('/bin/sh', ['-c', '{ cat; sleep 1; } | exec ctr "$@"', 'ctr', ...args], options);
  }

  /** `ctr run -d` of a shell script; its output goes to no one unless a flag says otherwise. */
  async detached(script: string, extra: readonly string[] = ['--null-io']): Promise<string> {
    const name = this.name();
    await this.ctr('run', '-d', ...this.flags(name, extra), this.image, name, '/bin/sh', '-c', script);
    const task = await this.api.tasks.get({ containerId: name, execId: '' }).catch(() => undefined);
    this.met(task?.process?.pid);
    return name;
  }

  /** A container with no task yet. */
  async created(script: string, extra: readonly string[] = []): Promise<string> {
    const name = this.name();
    await this.ctr(
      'containers',
      'create',
      ...this.flags(name, extra),
      '--', // or ctr 1.6 takes the script's -c for a flag of its own
      this.image,
      name,
      '/bin/sh',
      '-c',
      script,
    );
    return name;
  }

  /** Creates a container's task through the API, and does not start it. */
  async task(name: string, io: Partial<Stdio> = {}, checkpoint?: Descriptor): Promise<void> {
    const { mounts } = await this.api.snapshots.mounts({ snapshotter: this.snapshotter, key: name });
    const rest = { checkpoint, options: undefined, runtimePath: '' };
    const request = { containerId: name, rootfs: mounts, ...NO_STDIO, ...io, ...rest };
    const answer = await this.call('create', this.api.tasks.create(request));
    this.met(answer?.pid);
  }

  /** `ctr tasks exec` of a shell script. */
  async exec(name: string, execId: string, script: string, extra: readonly string[] = []) {
    const flags = ['--exec-id', execId, '--fifo-dir', this.fifos, ...extra];
    return this.ctr('tasks', 'exec', ...flags, name, '/bin/sh', '-c', script);
  }

  /** Adds an exec through the API, and does not start it. */
  addExec(name: string, execId: string, args: string[], spec: object = {}, io: Partial<Stdio> = {}) {
    const process = {
      args,
      cwd: '/',
      env: ['PATH=/bin', `PARITY=${name}`],
      user: { uid: 0, gid: 0 },
      ...spec,
    };
    return this.rawExec(name, execId, `${SPEC}Process`, JSON.stringify(process), io);
  }

  rawExec(name: string, execId: string, typeUrl: string, value: string, io: Partial<Stdio> = {}) {
    const spec = { typeUrl, value: Buffer.from(value) };
    const request = { containerId: name, execId, spec, ...NO_STDIO, ...io };
    return this.call(`exec ${execId}`, this.api.tasks.exec(request));
  }

  async start(containerId: string, execId = ''): Promise<number | undefined> {
    const answer = await this.call(`start ${execId}`, this.api.tasks.start({ containerId, execId }));
    this.met(answer?.pid);
    return answer?.pid;
  }

  state(containerId: string, execId = '') {
    return this.call(`state ${execId}`, this.api.tasks.get({ containerId, execId }));
  }

  wait(containerId: string, execId = '') {
    return this.call(`wait ${execId}`, this.api.tasks.wait({ containerId, execId }, { timeoutMs: 60_000 }));
  }

  kill(containerId: string, signal: number, options: { execId?: string; all?: boolean } = {}) {
    const what = `kill ${signal} ${options.execId ?? ''}`;
    return this.call(what, this.api.tasks.kill({ containerId, signal, execId: '', all: false, ...options }));
  }

  delete(containerId: string) {
    return this.call('delete', this.api.tasks.delete({ containerId }));
  }

  deleteExec(containerId: string, execId: string) {
    return this.call(`delete ${execId}`, this.api.tasks.deleteProcess({ containerId, execId }));
  }

  /** Kills a task and waits for its end. */
  async end(containerId: string): Promise<void> {
    const ended = this.wait(containerId);
    await this.kill(containerId, 9);
    await ended;
  }

  resize(containerId: string, execId: string, width: number, height: number) {
    return this.call(`resize ${execId}`, this.api.tasks.resizePty({ containerId, execId, width, height }));
  }

  closeIO(containerId: string, execId = '') {
    return this.call(`close ${execId}`, this.api.tasks.closeIO({ containerId, execId, stdin: true }));
  }

  update(containerId: string, resources: object) {
    return this.updateRaw(containerId, `${SPEC}LinuxResources`, JSON.stringify(resources));
  }

  updateRaw(containerId: string, typeUrl: string, value: string) {
    const resources = { typeUrl, value: Buffer.from(value) };
    return this.call(`update ${value}`, this.api.tasks.update({ containerId, resources, annotations: {} }));
  }

  /** Takes a checkpoint into the content store. */
  async checkpoint(containerId: string, exit: boolean): Promise<Descriptor | undefined> {
    const options = {
      typeUrl: 'containerd.runc.v1.CheckpointOptions',
      value: Buffer.from(
        CheckpointOptions.encode({ ...CheckpointOptions.decode(new Uint8Array()), exit }).finish(),
      ),
    };
    const ask = (): ReturnType<typeof this.api.tasks.checkpoint> =>
      this.api.tasks.checkpoint({ containerId, parentCheckpoint: '', options });
    // One that is cut off by the worker's end is refused, with nothing of it left: who wants it asks again.
    const asking = async (again: number): ReturnType<typeof ask> =>
      ask().catch((error: unknown) => {
        if (!isKilled || codeOf(error) !== Code.Unavailable || again === 0) throw error;
        return asking(again - 1);
      });
    const answer = asking(5);
    const kinds = answer.then(({ descriptors }) => descriptors.map(({ mediaType }) => mediaType));
    await this.call(`checkpoint ${exit ? 'and exit' : ''}`, kinds);
    const { descriptors } = await answer.catch(() => ({ descriptors: [] }));
    return descriptors.find(({ mediaType }) => mediaType.includes('criu'));
  }

  /** An exec that is added, started, waited for and deleted; its exit code. */
  async quietExec(name: string, execId: string, args: string[]): Promise<number> {
    const process = { args, cwd: '/', env: ['PATH=/bin', `PARITY=${name}`], user: { uid: 0, gid: 0 } };
    const spec = { typeUrl: `${SPEC}Process`, value: Buffer.from(JSON.stringify(process)) };
    const { tasks } = this.api;
    await tasks.exec({ containerId: name, execId, spec, ...NO_STDIO });
    const ended = tasks.wait({ containerId: name, execId }, { timeoutMs: 240_000 });
    await tasks.start({ containerId: name, execId });
    await ended;
    const { exitStatus } = await tasks.deleteProcess({ containerId: name, execId });
    return exitStatus;
  }

  /** How ctr shows the task: its line in `ls`, the processes in `ps`, the names of the metrics. */
  async shape(name: string): Promise<void> {
    const list = await runProgram('ctr', ['tasks', 'ls']);
    const lines = list.stdout.split('\n').filter((line) => line.includes(name));
    this.note('ctr tasks ls', lines.join('\n').replace(/\s+/g, ' '));
    const processes = await runProgram('ctr', ['tasks', 'ps', name]);
    this.note('ctr tasks ps', [processes.exitCode, withoutPids(processes.stdout), processes.stderr]);
    const metrics = await runProgram('ctr', ['tasks', 'metrics', name]);
    const names = metrics.stdout.split('\n').map((line) => line.split(/\s+/)[0]);
    this.note('ctr tasks metrics', [metrics.exitCode, names, metrics.stderr]);
  }

  /** Which fields the task's metrics have, from the API. */
  async metrics(name: string): Promise<void> {
    const { tasks } = this.api;
    const fields = tasks.metrics({ filters: [`id==${name}`] }).then(({ metrics }) =>
      metrics.map(({ id, data }) => {
        if (data === undefined) return [id];
        const decode = data.typeUrl.includes('v1') ? MetricsV1 : MetricsV2;
        return [id, data.typeUrl, ...fieldsOf(decode.decode(data.value))];
      }),
    );
    await this.call('metrics', fields);
  }

  /** Some of the task's metrics with their values, as ctr shows them. */
  async metricsOf(name: string, names: string[]): Promise<void> {
    const { stdout } = await runProgram('ctr', ['tasks', 'metrics', name]);
    const lines = stdout.split('\n').filter((line) => names.includes(line.split(/\s+/)[0] ?? ''));
    this.note(
      'metrics',
      lines.map((line) => line.replace(/\s+/g, ' ')),
    );
  }

  /** The task's processes, and which of them go by an exec's name. */
  async processes(name: string): Promise<void> {
    const { processes } = await this.api.tasks.listPids({ containerId: name });
    const seen = processes.map(({ pid, info }) => ({
      known: this.pids.indexOf(pid),
      details: info === undefined ? undefined : [info.typeUrl, ProcessDetails.decode(info.value)],
    }));
    // The kernel tells them in the order of their pids, which begin anew now and then.
    const known = seen.filter((process) => process.known !== -1).sort((a, b) => a.known - b.known);
    this.note('processes', known);
  }

  /** Waits until the container's script has made /ready. */
  async ready(name: string): Promise<void> {
    const answer = await this.api.tasks.get({ containerId: name, execId: '' });
    const root = `/proc/${answer.process?.pid}/root`;
    await until('the script', () => (readdirSync(root).includes('ready') ? true : undefined));
  }

  /** `ctr run -t` of a shell script, in a terminal. */
  async terminal(script: string): Promise<void> {
    const name = this.name();
    const flags = this.flags(name, ['-t', '--rm', '--fifo-dir', this.fifos]);
    await this.inTerminal(['run', ...flags, this.image, name, '/bin/sh', '-c', script]);
  }

  async terminalExec(name: string, script: string): Promise<void> {
    const flags = ['-t', '--exec-id', 'e', '--fifo-dir', this.fifos];
    await this.inTerminal(['tasks', 'exec', ...flags, name, '/bin/sh', '-c', script]);
  }

  private async inTerminal(args: string[]): Promise<void> {
    const quoted = ['ctr', ...args].map((arg) => `'${arg}'`).join(' ');
    await this.program('script', ['-qec', quoted, '/dev/null']);
  }

  /** A client that is killed once its task runs. */
  async leave(name: string, file: string, args: string[]): Promise<void> {
    const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'ignore'] });
    const ended = new Promise((resolve) => child.once('close', resolve));
    await until('the task to run', async () => {
      const task = await this.api.tasks.get({ containerId: name, execId: '' }).catch(() => undefined);
      if (task?.process?.status === 2) this.met(task.process.pid);
      return task?.process?.status === 2 ? true : undefined;
    });
    await this.pause(200);
    child.kill('SIGKILL');
    await ended;
  }
}

/** The columns are as wide as the longest pid. */
function withoutPids(text: string): string {
  return text.replace(/^\d+ +/gm, '<pid> ').replace(/^PID +/m, 'PID ');
}

/** The names of all fields that are set, with those of their fields; values are left out. */
function fieldsOf(value: unknown, path = ''): string[] {
  if (Array.isArray(value)) return [`${path}[${value.length === 0 ? 0 : 'n'}]`];
  if (typeof value !== 'object' || value === null) return value === undefined ? [] : [path];
  return Object.entries(value).flatMap(([key, field]) => fieldsOf(field, `${path}.${key}`));
}
