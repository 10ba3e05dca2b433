import { stringify } from 'smol-toml';
import { findLines, linePath } from '../config/lines.ts';
import { messageOf, StasisError } from '../errors.ts';
import { containerdChange, contentOf, DROP_IN } from './containerd-config.ts';
import type { Facts } from './facts.ts';

/** One thing that setup does. */
export type Step =
  | { readonly kind: 'dataset'; readonly name: string }
  | { readonly kind: 'file'; readonly path: string; readonly text: string; readonly why: string }
  | { readonly kind: 'service' }
  | { readonly kind: 'restart-containerd' };

export interface Finding {
  readonly level: 'ok' | 'note' | 'stop';
  readonly what: string;
  readonly text: string;
  /** The next step, where there is one. */
  readonly remedy?: string;
}

export interface Plan {
  readonly findings: readonly Finding[];
  /** Empty where there is nothing to do, or something in the way. */
  readonly steps: readonly Step[];
  readonly rootDataset: string;
}

export interface Wishes {
  /** Pool or dataset that the user named. */
  readonly pool: string | undefined;
  readonly restartContainerd: boolean;
}

export interface StasisFiles {
  /** /etc/stasis/config.toml, or what STASIS_CONFIG names. */
  readonly path: string;
  readonly text: string | undefined;
  /** `zfs.root` as it is set. */
  readonly root: string;
  readonly socket: string;
  /** Content that setup itself wrote to our drop-in the last time. */
  readonly written: string | undefined;
}

/** Below this a pool counts as full: stasisd could not even write its properties. */
const LEAST_FREE_BYTES = 64 * 1024 * 1024;

/** What setup would do on this host. Looks at nothing and changes nothing. */
export function makePlan(facts: Facts, wishes: Wishes, stasis: StasisFiles): Plan {
  const findings: Finding[] = [];
  const steps: Step[] = [];
  const ok = (what: string, text: string): void => void findings.push({ level: 'ok', what, text });
  const note = (what: string, text: string, remedy = ''): void =>
    void findings.push({ level: 'note', what, text, ...(remedy && { remedy }) });
  const stop = (what: string, text: string, remedy: string): void =>
    void findings.push({ level: 'stop', what, text, remedy });

  const root = rootDataset(facts, wishes, stasis, { ok, stop });
  if (root !== undefined) {
    if (!facts.datasets.includes(root)) steps.push({ kind: 'dataset', name: root });
    if (stasis.root !== root && (wishes.pool !== undefined || facts.pools.length > 1)) {
      steps.push({
        kind: 'file',
        path: stasis.path,
        text: withRoot(stasis.text ?? '', root),
        why: `zfs.root = "${root}"`,
      });
    }
  }
  programs(facts, { ok, note });

  if (facts.systemd === undefined) {
    note('service', 'systemd does not run here', 'start stasisd yourself, before containerd');
  } else if (!facts.systemd.unit) {
    note('service', 'there is no stasisd.service', 'start stasisd yourself, before containerd');
  } else if (facts.systemd.enabled && facts.systemd.active) ok('service', 'stasisd.service runs');
  else steps.push({ kind: 'service' });

  const changed = containerd(facts, stasis, { ok, note, stop }, steps);
  if (changed && wishes.restartContainerd) {
    if (facts.systemd !== undefined) steps.push({ kind: 'restart-containerd' });
    else
      note(
        'service',
        'containerd cannot be restarted from here without systemd',
        'restart it yourself, then run stasis setup --yes again to check it',
      );
  }
  const stopped = findings.some(({ level }) => level === 'stop');
  return { findings, steps: stopped ? [] : steps, rootDataset: root ?? '' };
}

interface Says {
  readonly ok: (what: string, text: string) => void;
  readonly note: (what: string, text: string, remedy?: string) => void;
  readonly stop: (what: string, text: string, remedy: string) => void;
}

function rootDataset(
  facts: Facts,
  wishes: Wishes,
  stasis: StasisFiles,
  { ok, stop }: Pick<Says, 'ok' | 'stop'>,
): string | undefined {
  if (facts.zfs === undefined) {
    stop(
      'zfs',
      facts.zfsError,
      'install zfsutils-linux and load the module (modprobe zfs), or install zfs-fuse and start it',
    );
    return undefined;
  }
  ok('zfs', `${facts.zfs.kind === 'openzfs' ? 'OpenZFS' : 'zfs-fuse'} ${facts.zfs.version}`);
  const names = facts.pools.map(({ name }) => name);
  const asked = wishes.pool ?? (stasis.root || undefined) ?? (names.length === 1 ? names[0] : undefined);
  if (names.length === 0) {
    stop(
      'pool',
      'there is no pool',
      'create one (zpool create tank DEVICE) or import one (zpool import tank)',
    );
    return undefined;
  }
  if (asked === undefined) {
    stop('pool', `there are several pools: ${names.join(', ')}`, 'choose one: stasis setup --pool NAME');
    return undefined;
  }
  const pool = facts.pools.find(({ name }) => name === asked.split('/')[0]);
  if (pool === undefined) {
    stop('pool', `there is no pool ${asked.split('/')[0]}`, `the pools here are ${names.join(', ')}`);
    return undefined;
  }
  if (pool.health !== 'ONLINE' && pool.health !== 'DEGRADED') {
    stop('pool', `${pool.name} is ${pool.health}`, `see: zpool status ${pool.name}`);
    return undefined;
  }
  if (pool.freeBytes < LEAST_FREE_BYTES) {
    stop('pool', `${pool.name} is full`, 'make room in it, or choose another with --pool');
    return undefined;
  }
  const parent = asked.includes('/') ? asked.slice(0, asked.lastIndexOf('/')) : pool.name;
  if (!facts.datasets.includes(parent) && parent !== pool.name) {
    stop('pool', `there is no dataset ${parent}`, `create it first: zfs create -p ${parent}`);
    return undefined;
  }
  ok('pool', `${pool.name}, ${(pool.freeBytes / 2 ** 30).toFixed(1)} GiB free`);
  return asked.includes('/') ? asked : `${asked}/stasis`;
}

function programs(facts: Facts, { ok, note }: Pick<Says, 'ok' | 'note'>): void {
  const { criu, oci } = facts;
  if (criu === undefined)
    note('criu', facts.criuError, 'install stasis-criu: without CRIU checkpoints keep the disk alone');
  else if (!criu.works)
    note('criu', `${criu.version} does not work here: ${criu.complaint}`, 'install stasis-criu');
  else if (!criu.safeForClones) {
    note(
      'criu',
      `${criu.version}: clones are refused, as they would repeat random numbers`,
      'install stasis-criu',
    );
  } else ok('criu', criu.version);
  if (oci === undefined) note('oci-runtime', facts.ociError, 'install runc, or set runtime.oci');
  else if (!oci.criu)
    note('oci-runtime', `${oci.name} ${oci.version} is built without CRIU`, 'set runtime.oci = "runc"');
  else ok('oci-runtime', `${oci.name} ${oci.version}`);
  if (facts.cgroup === undefined)
    note('cgroups', 'not mounted', 'mount a cgroup hierarchy at /sys/fs/cgroup');
  else ok('cgroups', facts.cgroup === 'v2' ? 'version 2' : 'version 1');
  if (!facts.userNamespaces) note('user-namespaces', 'switched off: containers cannot have one');
}

/** Whether containerd's configuration has to change. */
function containerd(facts: Facts, stasis: StasisFiles, { ok, note, stop }: Says, steps: Step[]): boolean {
  if (facts.containerd === undefined) {
    stop('containerd', facts.containerdError, 'install containerd, or mend the one that is there');
    return false;
  }
  ok(
    'containerd',
    `${facts.containerd.version}, ${facts.files.text === undefined ? 'without' : 'with'} ${facts.files.path}`,
  );
  let change;
  try {
    change = containerdChange(
      facts.files,
      facts.containerd.version,
      stasis.socket,
      facts.zfs?.mapsIds ?? false,
    );
  } catch (error) {
    stop('containerd', messageOf(error), (error instanceof StasisError && error.remedy) || '');
    return false;
  }
  for (const text of change.notes) note('containerd', text);
  const foreign =
    facts.dropIn !== undefined && facts.dropIn !== change.dropIn && facts.dropIn !== stasis.written;
  if (foreign) {
    stop(
      'containerd',
      `${DROP_IN} was edited by hand, or is not ours`,
      `move it away, and run stasis setup again to have it written anew`,
    );
    return false;
  }
  const before = steps.length;
  if (facts.dropIn !== change.dropIn) {
    steps.push({ kind: 'file', path: DROP_IN, text: change.dropIn, why: contentOf(change.dropIn) });
  }
  if (change.main !== undefined) {
    steps.push({ kind: 'file', path: facts.files.path, text: change.main, why: 'imports the former' });
  }
  return steps.length > before;
}

/** The configuration with `zfs.root` set, everything else as it is. */
function withRoot(text: string, root: string): string {
  const value = stringify({ root }).trim();
  const lines = text.split('\n');
  const at = findLines(text);
  const key = at.get(linePath('zfs', 'root'));
  if (key !== undefined) {
    lines[key - 1] = (lines[key - 1] ?? '').replace(/root\s*=\s*("[^"]*"|'[^']*')/, () => value);
    return lines.join('\n');
  }
  const table = at.get(linePath('zfs'));
  if (table === undefined)
    return `${text}${text === '' || text.endsWith('\n') ? '' : '\n'}\n[zfs]\n${value}\n`;
  // Below its comment, where it stands as a comment itself.
  const next = lines.findIndex((line, index) => index >= table && /^\s*\[/.test(line));
  const shown = lines.findIndex(
    (line, index) => index >= table && (next === -1 || index < next) && /^\s*#\s*root\s*=/.test(line),
  );
  lines.splice(shown === -1 ? table : shown + 1, 0, value);
  return lines.join('\n');
}
