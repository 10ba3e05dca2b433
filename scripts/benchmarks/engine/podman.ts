// Debian's podman, the peer of row `rewind-rate`: a storage, a configuration and a cgroup of its own, and nothing left of them.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../measure.ts';

const state = process.env['STASIS_STATE'] ?? '';
const programs = process.env['STASIS_PODMAN'] ?? '';

/** Where podman, its image library and netavark keep what no option moves. */
const fixedPlaces = ['/run/containers', '/run/lock/netavark.lock', '/run/runc', '/var/lib/containers'];
const cgroup = '/stasis-podman';

export interface Podman {
  /** Runs a command, which has to succeed. @returns what it printed */
  readonly podman: (...args: string[]) => string;
  /** A folder on a tmpfs, for checkpoints. */
  readonly images: string;
  /** Starts a container `name` without network and without a log: what `ctr run --null-io` gives. */
  readonly start: (name: string, image: string, command: readonly string[]) => void;
  /** The first process of a container. */
  readonly pidOf: (name: string) => number;
}

/**
 * Runs `use` with a podman that has `image`, which containerd has. It uses runc and CRIU as the stack does; what a host usually
 * has on a tmpfs is on one, and it keeps no events.
 */
export async function withPodman<T>(image: string, use: (podman: Podman) => Promise<T>): Promise<T> {
  const [data, volatile] = [join(state, 'data/podman'), join(state, 'run/podman')];
  const [images, policy] = [join(volatile, 'images'), join(data, 'policy.json')];
  const options = [
    ...[
      '--root',
      join(data, 'root'),
      '--runroot',
      join(volatile, 'root'),
      '--tmpdir',
      join(volatile, 'libpod'),
    ],
    ...['--volumepath', join(data, 'volumes'), '--storage-driver', 'overlay', '--runtime', 'runc'],
    ...['--cgroup-manager', 'cgroupfs', '--events-backend', 'none'],
  ];
  const env = {
    ...process.env,
    CONTAINERS_CONF: join(data, 'containers.conf'),
    HOME: data,
    PODMAN_IGNORE_CGROUPSV1_WARNING: '1',
    TMPDIR: join(volatile, 'tmp'),
  };
  const podman = (...args: string[]): string => {
    const result = spawnSync(join(programs, 'podman'), [...options, ...args], { encoding: 'utf8', env });
    if (result.status === 0) return result.stdout;
    throw new Error(
      `podman ${args.join(' ')} ended with ${result.status ?? result.signal}: ${result.stderr}`,
    );
  };
  const foreign = fixedPlaces.filter((place) => existsSync(place));
  try {
    for (const folder of [data, images, env.TMPDIR]) mkdirSync(folder, { recursive: true });
    writeFileSync(env.CONTAINERS_CONF, configuration(data));
    writeFileSync(policy, '{"default":[{"type":"insecureAcceptAnything"}]}');
    const archive = join(data, 'image.tar');
    run('ctr', 'images', 'export', archive, image);
    podman('pull', '--quiet', '--signature-policy', policy, `oci-archive:${archive}`);
    rmSync(archive);
    return await use({
      podman,
      images,
      start: (name, reference, command) => {
        podman('run', '-d', '--name', name, ...asCtrRuns, reference, ...command);
      },
      pidOf: (name) => Number(podman('inspect', '--format', '{{.State.Pid}}', name)),
    });
  } finally {
    spawnSync(join(programs, 'podman'), [...options, 'rm', '--all', '--force', '--time', '0'], { env });
    for (const mount of mountsBelow(data)) run('umount', mount);
    for (const folder of [data, volatile]) rmSync(folder, { recursive: true, force: true });
    for (const place of fixedPlaces)
      if (!foreign.includes(place)) rmSync(place, { recursive: true, force: true });
    removeCgroups();
  }
}

/** What a container of `ctr run --null-io` has. Limits are named, since podman's own need a capability that not every root has. */
const asCtrRuns = [
  ...['--network', 'none', '--log-driver', 'none', '--security-opt', 'seccomp=unconfined'],
  ...['--ulimit', 'nofile=1024:1024', '--ulimit', 'nproc=4096:4096', '--cgroup-parent', cgroup],
];

function configuration(data: string): string {
  const runc = process.env['STASIS_RUNC'] ?? 'runc';
  return `[engine]
conmon_path = ["${programs}/conmon"]
helper_binaries_dir = ["${programs}"]
lock_type = "file"
[engine.runtimes]
runc = ["${runc}"]
[network]
network_config_dir = "${data}/networks"
`;
}

/** podman's storage is a mount of its own. */
function mountsBelow(folder: string): string[] {
  return run('awk', '-v', `at=${folder}/`, 'index($5, at) == 1 { print $5 }', '/proc/self/mountinfo')
    .split('\n')
    .filter(Boolean)
    .reverse();
}

/** conmon's, which podman leaves. */
function removeCgroups(): void {
  run(
    'sh',
    '-c',
    'find /sys/fs/cgroup -depth -type d -path "*$1*" -exec rmdir {} + 2>/dev/null; true',
    '-',
    cgroup,
  );
}
