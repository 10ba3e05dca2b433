import { execFileSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { access, readFile, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fillRootfs } from '../../support/rootfs.ts';
import { slowness } from '../../support/slowness.ts';
import type { InstantPlan, InstantTarget, InstantTools } from '../../../../src/checkpoint/instant-plan.ts';
import { defaultCriuOptions } from '../../../../src/checkpoint/stock.ts';
import { CriuFinder } from '../../../../src/criu/find.ts';
import { RuntimeBinaries } from '../../../../src/oci/binary.ts';
import { openRuntime } from '../../../../src/oci/runtime.ts';
import type { OciRuntime, RuntimeBinary } from '../../../../src/oci/types.ts';
import { exec } from '../../../../src/sys/command.ts';
import { findCgroup } from '../../../../src/sys/cgroup.ts';
import { removeCgroup } from '../../../../src/sys/cgroup-remove.ts';
import { openZfs, type Zfs } from '../../../../src/zfs/zfs.ts';

/** What the lab lacks on this machine, or undefined. */
export function missing(): string | undefined {
  if (process.getuid?.() !== 0) return 'root';
  for (const name of ['STASIS_POOL', 'STASIS_CRIU', 'STASIS_RUNC']) {
    if ((process.env[name] ?? '') === '') return `${name} (bring a stack up and take its environment)`;
  }
  return undefined;
}

/** crun refuses a host with v1 controllers where the v2 tree beside them has one as well. */
export function refusedByCrun(): string | undefined {
  const controllers = '/sys/fs/cgroup/unified/cgroup.controllers';
  const left = existsSync(controllers) ? readFileSync(controllers, 'utf8').trim() : '';
  return left === ''
    ? undefined
    : `crun on this host: mount the v1 cgroup controllers that are left, ${left}`;
}

export interface Running {
  readonly id: string;
  readonly pid: number;
  /** Its root file system, as the host sees it. */
  readonly rootfs: string;
  readonly dataset: string;
  readonly bundle: string;
  readonly runtime: OciRuntime;
  readonly target: InstantTarget;
}

/**
 * A folder, a few datasets and an OCI runtime: containers without containerd. Everything it makes is below one dataset
 * and one folder, and `close` takes all of it away.
 */
export class Lab {
  readonly folder: string;
  readonly zfs: Zfs;
  readonly binary: RuntimeBinary;
  readonly tools: InstantTools;
  readonly #root: string;
  /** On tmpfs where there is one, as stasisd's staging folder is. */
  readonly #dumps = mkdtempSync(existsSync('/dev/shm') ? '/dev/shm/stasis-engine-' : '/tmp/stasis-dumps-');
  readonly #running = new Map<string, Running>();
  #names = 0;

  private constructor(folder: string, root: string, zfs: Zfs, binary: RuntimeBinary) {
    this.folder = folder;
    this.#root = root;
    this.zfs = zfs;
    this.binary = binary;
    this.tools = { zfs, criu: new CriuFinder(exec, process.env['STASIS_CRIU'] ?? 'criu') };
  }

  static async open(runtime = process.env['STASIS_RUNC'] ?? 'runc'): Promise<Lab> {
    const folder = mkdtempSync('/tmp/stasis-engine-');
    const root = `${process.env['STASIS_POOL'] ?? ''}/engine-${folder.slice(-6)}`;
    const zfs = await openZfs(exec);
    const binary = await new RuntimeBinaries(exec).get(runtime);
    execFileSync('zfs', ['create', '-o', `mountpoint=${folder}/data`, root]);
    const lab = new Lab(folder, root, zfs, binary);
    execFileSync('zfs', ['create', `${root}/base`]);
    fill(join(folder, 'data/base'));
    execFileSync('zfs', ['snapshot', `${root}/base@layer`]);
    return lab;
  }

  /** A fresh clone of a snapshot, mounted. */
  clone(snapshot: string): { dataset: string; rootfs: string } {
    const name = `c${++this.#names}`;
    execFileSync('zfs', ['clone', snapshot, `${this.#root}/${name}`]);
    return { dataset: `${this.#root}/${name}`, rootfs: join(this.folder, 'data', name) };
  }

  /** Starts a writer (see writer.pl), or another program, on a clone of the base. Returns when it counts. */
  async start({
    megabytes = 0,
    pause = 0.002,
    args = ['/bin/perl', '/writer.pl', String(megabytes), String(pause)],
  } = {}): Promise<Running> {
    const disk = this.clone(`${this.#root}/base@layer`);
    const { id, bundle, runtime } = this.#bundle(disk.rootfs, args);
    await runtime.create({
      id,
      bundle,
      pidFile: join(bundle, 'init.pid'),
      stdioFds: ['ignore', 'ignore', 'ignore'],
    });
    await runtime.start(id);
    const running = await this.#note(id, bundle, runtime, disk);
    if (args[1] === '/writer.pl') await this.progress(running, 3);
    return running;
  }

  /** Restores an image on a fresh clone of a snapshot, beside whatever runs. Answers what the disk said before. */
  async restore(snapshot: string, imageDir: string): Promise<{ running: Running; before: number }> {
    const disk = this.clone(snapshot);
    const before = count(disk.rootfs);
    const { id, bundle, runtime } = this.#bundle(disk.rootfs, ['/bin/perl']);
    await runtime.restore({
      ...defaultCriuOptions,
      id,
      bundle,
      imageDir,
      workDir: this.emptyFolder('work'),
      pidFile: join(bundle, 'init.pid'),
      detach: true,
      noSubreaper: true,
      stdioFds: ['ignore', 'ignore', 'ignore'],
    });
    return { running: await this.#note(id, bundle, runtime, disk), before };
  }

  /** Waits until a writer has counted on by `steps`. @throws when it found memory and disk apart, or stands still */
  async progress(running: Pick<Running, 'rootfs'>, steps: number, timeoutMs = 20_000): Promise<void> {
    const from = count(running.rootfs);
    const deadline = Date.now() + timeoutMs * slowness;
    while (count(running.rootfs) < from + steps) {
      const torn = await readFile(join(running.rootfs, 'torn'), 'utf8').catch(() => undefined);
      if (torn !== undefined) throw new Error(`memory and disk are apart: ${torn}`);
      if (Date.now() > deadline) throw new Error(`the writer stands still at ${count(running.rootfs)}`);
      await sleep(5);
    }
  }

  /** Stops and removes a container; its dataset stays. */
  async remove(running: Running): Promise<void> {
    this.#running.delete(running.id);
    await running.runtime.delete(running.id, { force: true }).catch(() => undefined);
    await removeCgroup(running.target.cgroup).catch(() => undefined);
  }

  emptyFolder(prefix: string): string {
    const path = join(this.#dumps, `${prefix}${++this.#names}`);
    mkdirSync(path, { mode: 0o700 });
    return path;
  }

  /** The plan of a usual checkpoint with memory and disk. */
  plan(
    running: Running,
    name: string,
    options: { required?: boolean; exit?: boolean; timeoutMs?: number } = {},
  ) {
    const { required = true, exit = false, timeoutMs = 60_000 * slowness } = options;
    return {
      memory: {
        imageDir: this.emptyFolder('image'),
        workDir: this.emptyFolder('work'),
        criu: defaultCriuOptions,
        required,
      },
      disk: {
        snapshot: `${running.dataset}@${name}`,
        properties: { 'stasis:test': name },
        syncPath: running.rootfs,
      },
      exit,
      timeoutMs,
    } satisfies InstantPlan;
  }

  snapshots(): string[] {
    return execFileSync('zfs', ['list', '-H', '-o', 'name', '-t', 'snapshot', '-r', this.#root], {
      encoding: 'utf8',
    })
      .split('\n')
      .filter((name) => name !== '' && !name.endsWith('@layer'));
  }

  async close(): Promise<void> {
    for (const running of this.#running.values()) await this.remove(running);
    for (let tries = 0; ; tries++) {
      try {
        execFileSync('zfs', ['destroy', '-R', this.#root], { stdio: 'pipe' });
        break;
      } catch (error) {
        // A file system whose last process has just ended is busy for a moment.
        if (tries === 50) throw error;
        await sleep(100);
      }
    }
    await rm(this.#dumps, { recursive: true, force: true });
    await rm(this.folder, { recursive: true, force: true });
  }

  #bundle(rootfs: string, args: readonly string[]): { id: string; bundle: string; runtime: OciRuntime } {
    const id = `engine-${this.folder.slice(-6)}-${++this.#names}`;
    const bundle = join(this.folder, id);
    mkdirSync(bundle);
    execFileSync(this.binary.path, ['spec'], { cwd: bundle });
    const spec = JSON.parse(readFileSync(join(bundle, 'config.json'), 'utf8')) as Spec;
    spec.process.terminal = false;
    spec.process.args = [...args];
    spec.root = { path: rootfs, readonly: false };
    spec.linux.cgroupsPath = `/stasis-test/${id}`;
    writeFileSync(join(bundle, 'config.json'), JSON.stringify(spec));
    const criuDir = dirname(process.env['STASIS_CRIU'] ?? '');
    const runtime = openRuntime({
      exec,
      binary: this.binary,
      bundle,
      root: join(this.folder, 'runtime'),
      criuDir,
    });
    return { id, bundle, runtime };
  }

  async #note(
    id: string,
    bundle: string,
    runtime: OciRuntime,
    disk: { dataset: string; rootfs: string },
  ): Promise<Running> {
    const pid = Number(await readFile(join(bundle, 'init.pid'), 'utf8'));
    const target = { id, pid, cgroup: await findCgroup(pid), runtime };
    const running = { id, pid, bundle, runtime, target, ...disk };
    this.#running.set(id, running);
    return running;
  }
}

interface Spec {
  process: { terminal: boolean; args: string[] };
  root: { path: string; readonly: boolean };
  linux: { cgroupsPath: string };
}

/** The number that the disk holds; -1 before the first. */
export function count(rootfs: string): number {
  try {
    return statSync(join(rootfs, 'appended')).size / 9;
  } catch {
    return -1;
  }
}

export async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

/** A root file system of busybox and perl-base, which every Debian has. */
function fill(rootfs: string): void {
  for (const folder of ['bin', 'proc', 'sys', 'dev', 'tmp', 'etc', 'lib']) mkdirSync(join(rootfs, folder));
  fillRootfs(rootfs);
  cpSync(busybox(), join(rootfs, 'bin/busybox'));
  for (const name of ['sh', 'sleep', 'true']) symlinkSync('busybox', join(rootfs, 'bin', name));
}

function busybox(): string {
  const cached = join(dirname(dirname(dirname(process.env['STASIS_CRIU'] ?? ''))), 'busybox/bin/busybox');
  for (const path of [cached, '/bin/busybox', '/usr/bin/busybox']) {
    if (statSync(path, { throwIfNoEntry: false }) !== undefined) return path;
  }
  throw new Error('busybox-static is not installed');
}
