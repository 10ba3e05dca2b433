import { readdir, readFile, statfs } from 'node:fs/promises';
import { release } from 'node:os';
import { dirname, isAbsolute, join } from 'node:path';
import { parse } from 'smol-toml';
import type { Config } from '../config/config.ts';
import { CriuFinder } from '../criu/find.ts';
import { hasErrno, messageOf } from '../errors.ts';
import { RuntimeBinaries } from '../oci/binary.ts';
import { ANSWER_TIMEOUT_MS, type Exec } from '../sys/command.ts';
import { openZfs, type PoolStatus } from '../zfs/zfs.ts';
import { mapsIds } from '../zfs/abilities.ts';
import { type ContainerdFiles, DROP_IN } from './containerd-config.ts';

/** What `stasis setup` found on the host. Whatever is undefined is not there; `…Error` says why. */
export interface Facts {
  readonly containerd: { readonly version: string } | undefined;
  readonly containerdError: string;
  readonly files: ContainerdFiles;
  /** Our file as it is. */
  readonly dropIn: string | undefined;
  readonly zfs:
    | {
        readonly kind: string;
        readonly version: string;
        /** See zfs/abilities.ts. */ readonly mapsIds: boolean;
      }
    | undefined;
  readonly zfsError: string;
  readonly pools: readonly PoolStatus[];
  /** Datasets among those that could become our root. */
  readonly datasets: readonly string[];
  readonly criu:
    | {
        readonly version: string;
        readonly works: boolean;
        readonly safeForClones: boolean;
        readonly complaint: string;
      }
    | undefined;
  readonly criuError: string;
  readonly oci: { readonly name: string; readonly version: string; readonly criu: boolean } | undefined;
  readonly ociError: string;
  readonly cgroup: 'v1' | 'v2' | undefined;
  readonly userNamespaces: boolean;
  /** systemd runs, and what it says of stasisd.service. */
  readonly systemd:
    { readonly unit: boolean; readonly enabled: boolean; readonly active: boolean } | undefined;
}

export interface Surroundings {
  readonly exec: Exec;
  readonly config: Config;
  readonly uid: number;
  /** Put before every path; tests look at hosts in a folder. */
  readonly prefix: string;
  /** containerd's main file. */
  readonly containerdConfig: string;
}

const CGROUP2_SUPER_MAGIC = 0x63677270;

/** Looks at the host and changes nothing. */
export async function gatherFacts(around: Surroundings): Promise<Facts> {
  const { exec, config, prefix, containerdConfig } = around;
  const [containerd, zfs, criu, oci, files, dropIn, cgroup, userNamespaces, systemd] = await Promise.all([
    attempt(containerdVersion(exec)),
    attempt(zfsFacts(exec, config)),
    attempt(new CriuFinder(exec, config.runtime.criu).get()),
    attempt(new RuntimeBinaries(exec).get(config.runtime.oci)),
    containerdFiles(prefix, containerdConfig),
    readIfThere(prefix + DROP_IN),
    cgroupVersion(prefix),
    userNamespacesWork(prefix),
    systemdFacts(exec, prefix),
  ]);
  return {
    containerd: containerd.value === undefined ? undefined : { version: containerd.value },
    containerdError: containerd.error,
    files,
    dropIn,
    zfs: zfs.value,
    zfsError: zfs.error,
    pools: zfs.value?.pools ?? [],
    datasets: zfs.value?.datasets ?? [],
    criu: criu.value,
    criuError: criu.error,
    oci: oci.value,
    ociError: oci.error,
    cgroup,
    userNamespaces,
    systemd,
  };
}

async function attempt<T>(work: Promise<T>): Promise<{ value: T | undefined; error: string }> {
  try {
    return { value: await work, error: '' };
  } catch (error) {
    return { value: undefined, error: messageOf(error) };
  }
}

async function containerdVersion(exec: Exec): Promise<string> {
  const { exitCode, stdout, spawnError, stderr, timedOut } = await exec('containerd', ['--version'], {
    timeoutMs: ANSWER_TIMEOUT_MS,
  });
  if (timedOut) throw new Error(`containerd --version: no answer in ${ANSWER_TIMEOUT_MS / 1000} s`);
  if (exitCode !== 0)
    throw new Error(spawnError === undefined ? stderr.trim() : 'there is no program containerd');
  const version = / v?(\d+\.\d+\.\d+)/.exec(stdout)?.[1];
  if (version === undefined) throw new Error(`containerd says only: ${stdout.trim()}`);
  return version;
}

async function zfsFacts(exec: Exec, config: Config) {
  const zfs = await openZfs(exec, { zfs: config.zfs.zfs_path, zpool: config.zfs.zpool_path });
  const names = await zfs.pools();
  const pools = await Promise.all(names.map((name) => zfs.poolStatus(name)));
  const datasets = await Promise.all(
    names.map(async (name) =>
      (await zfs.list({ root: name, types: ['filesystem'], properties: ['type'], depth: 2 })).map(
        (row) => row.name,
      ),
    ),
  );
  return {
    kind: zfs.kind,
    version: zfs.version,
    mapsIds: mapsIds(zfs, release()),
    pools,
    datasets: datasets.flat(),
  };
}

/** The main file and what it imports, by containerd's rules: globs, and paths relative to the file. */
async function containerdFiles(prefix: string, path: string): Promise<ContainerdFiles> {
  const text = await readIfThere(prefix + path);
  const imported: { path: string; text: string }[] = [];
  const missing: string[] = [];
  for (const pattern of importsOf(text)) {
    const full = isAbsolute(pattern) ? pattern : join(dirname(path), pattern);
    for (const file of await expand(prefix, full)) {
      if (file === DROP_IN) continue;
      const content = await readIfThere(prefix + file);
      if (content !== undefined) imported.push({ path: file, text: content });
      else missing.push(file);
    }
  }
  return { path, text, imported, missing };
}

function importsOf(text: string | undefined): string[] {
  try {
    const { imports } = parse(text ?? '');
    return Array.isArray(imports) ? imports.map(String) : [];
  } catch {
    return []; // the plan says what is wrong with the file
  }
}

/** Go's filepath.Glob as far as configurations use it: stars in the last part of the path. */
async function expand(prefix: string, pattern: string): Promise<string[]> {
  if (!pattern.includes('*')) return [pattern];
  const folder = dirname(pattern);
  const match = new RegExp(
    `^${pattern
      .slice(folder.length + 1)
      .split('*')
      .map((part) => part.replace(/[.+?^${}()|[\]\\]/g, '\\$&'))
      .join('[^/]*')}$`,
  );
  const names = await readdir(prefix + folder).catch(() => []);
  return names
    .filter((name) => match.test(name))
    .sort()
    .map((name) => `${folder}/${name}`);
}

export async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (hasErrno(error, 'ENOENT') || hasErrno(error, 'ENOTDIR')) return undefined;
    throw error;
  }
}

async function cgroupVersion(prefix: string): Promise<'v1' | 'v2' | undefined> {
  const root = await statfs(`${prefix}/sys/fs/cgroup`).catch(() => undefined);
  if (root === undefined) return undefined;
  return root.type === CGROUP2_SUPER_MAGIC ? 'v2' : 'v1';
}

async function userNamespacesWork(prefix: string): Promise<boolean> {
  const limit = await readIfThere(`${prefix}/proc/sys/user/max_user_namespaces`);
  return limit !== undefined && Number(limit) > 0;
}

async function systemdFacts(exec: Exec, prefix: string): Promise<Facts['systemd']> {
  if (
    !(await readdir(`${prefix}/run/systemd/system`).then(
      () => true,
      () => false,
    ))
  )
    return undefined;
  const { stdout } = await exec(
    'systemctl',
    ['show', '--property=LoadState,UnitFileState,ActiveState', 'stasisd.service'],
    { timeoutMs: ANSWER_TIMEOUT_MS },
  );
  const value = (name: string): string => new RegExp(`^${name}=(.*)$`, 'm').exec(stdout)?.[1] ?? '';
  return {
    unit: value('LoadState') === 'loaded',
    enabled: value('UnitFileState') === 'enabled',
    active: value('ActiveState') === 'active',
  };
}
