import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { DROP_IN } from '../../../src/setup/containerd-config.ts';
import type { Facts } from '../../../src/setup/facts.ts';
import { makePlan, type StasisFiles, type Wishes } from '../../../src/setup/plan.ts';

const MAIN = '/etc/containerd/config.toml';
const tank = { name: 'tank', health: 'ONLINE', sizeBytes: 2 ** 35, freeBytes: 2 ** 34 };

/** A Debian 13 host on which nothing was set up yet. */
const host: Facts = {
  containerd: { version: '1.7.24' },
  containerdError: '',
  files: { path: MAIN, text: 'version = 2\n', imported: [], missing: [] },
  dropIn: undefined,
  zfs: { kind: 'openzfs', version: '2.3.2', mapsIds: true },
  zfsError: '',
  pools: [tank],
  datasets: ['tank'],
  criu: { version: '4.2.1', works: true, safeForClones: true, complaint: '' },
  criuError: '',
  oci: { name: 'runc', version: '1.1.15', criu: true },
  ociError: '',
  cgroup: 'v2',
  userNamespaces: true,
  systemd: { unit: true, enabled: false, active: false },
};
const config: StasisFiles = {
  path: '/etc/stasis/config.toml',
  text: '# mine\n[zfs]\n#root = ""\n',
  root: '',
  socket: '/run/stasis/stasisd.sock',
  written: undefined,
};

interface Case {
  readonly name: string;
  readonly facts?: Partial<Facts>;
  readonly wishes?: Partial<Wishes>;
  readonly config?: Partial<StasisFiles>;
  /** Steps by kind and place. */
  readonly steps?: readonly string[];
  /** What is in the way. */
  readonly stop?: RegExp;
  readonly note?: RegExp;
}

const all = ['dataset tank/stasis', 'service', `file ${DROP_IN}`, `file ${MAIN}`];
const cases: Case[] = [
  { name: 'a fresh host', steps: all },
  {
    name: 'a fresh host, restart wanted',
    wishes: { restartContainerd: true },
    steps: [...all, 'restart-containerd'],
  },
  { name: 'containerd 1.6', facts: { containerd: { version: '1.6.20' } }, steps: all },
  { name: 'containerd 2.1', facts: { containerd: { version: '2.1.9' } }, steps: all },
  { name: 'containerd 1.5', facts: { containerd: { version: '1.5.9' } }, stop: /too old/ },
  {
    name: 'no containerd',
    facts: { containerd: undefined, containerdError: 'there is no program containerd' },
    stop: /no program containerd/,
  },
  {
    name: 'no configuration of containerd',
    facts: { files: { path: MAIN, text: undefined, imported: [], missing: [] } },
    steps: all,
  },
  {
    name: 'a configuration of containerd that imports conf.d',
    facts: {
      files: {
        path: MAIN,
        text: 'version = 2\nimports = ["/etc/containerd/conf.d/*.toml"]\n',
        imported: [],
        missing: [],
      },
    },
    steps: all.slice(0, 3),
  },
  {
    name: 'a broken configuration of containerd',
    facts: { files: { path: MAIN, text: '[', imported: [], missing: [] } },
    stop: /not valid TOML/,
  },
  {
    name: 'our file there, not written by setup',
    facts: { dropIn: 'version = 2\n' },
    stop: /edited by hand, or is not ours/,
  },
  {
    name: 'our file there, of an older version',
    facts: { dropIn: 'old\n' },
    config: { written: 'old\n' },
    steps: all,
  },
  {
    name: 'two pools',
    facts: { pools: [tank, { ...tank, name: 'dozer' }], datasets: ['tank', 'dozer'] },
    stop: /several pools: tank, dozer/,
  },
  {
    name: 'two pools, one chosen',
    facts: { pools: [tank, { ...tank, name: 'dozer' }], datasets: ['tank', 'dozer'] },
    wishes: { pool: 'dozer' },
    steps: ['dataset dozer/stasis', 'file /etc/stasis/config.toml', ...all.slice(1)],
  },
  {
    name: 'a dataset chosen',
    facts: { datasets: ['tank', 'tank/apps'] },
    wishes: { pool: 'tank/apps/stasis' },
    steps: ['dataset tank/apps/stasis', 'file /etc/stasis/config.toml', ...all.slice(1)],
  },
  {
    name: 'a dataset chosen below none',
    wishes: { pool: 'tank/apps/stasis' },
    stop: /no dataset tank\/apps/,
  },
  { name: 'a pool chosen that is not there', wishes: { pool: 'dozer' }, stop: /there is no pool dozer/ },
  {
    name: 'a pool configured that is not there',
    config: { root: 'dozer/x' },
    stop: /there is no pool dozer/,
  },
  { name: 'no pool', facts: { pools: [], datasets: [] }, stop: /there is no pool/ },
  { name: 'a full pool', facts: { pools: [{ ...tank, freeBytes: 1000 }] }, stop: /tank is full/ },
  { name: 'a broken pool', facts: { pools: [{ ...tank, health: 'SUSPENDED' }] }, stop: /tank is SUSPENDED/ },
  {
    name: 'no ZFS',
    facts: { zfs: undefined, zfsError: 'zfs: ENOENT', pools: [], datasets: [] },
    stop: /zfs: ENOENT/,
  },
  {
    name: 'zfs-fuse',
    facts: { zfs: { kind: 'zfs-fuse', version: 'pool version 23', mapsIds: false } },
    steps: all,
  },
  {
    name: 'no CRIU',
    facts: { criu: undefined, criuError: '"criu" is not on PATH' },
    steps: all,
    note: /not on PATH; install stasis-criu/,
  },
  {
    name: 'an old CRIU',
    facts: { criu: { version: '4.1.1', works: true, safeForClones: false, complaint: '' } },
    steps: all,
    note: /4\.1\.1: clones are refused/,
  },
  {
    name: 'a CRIU that does not know the kernel',
    facts: { criu: { version: '3.17.1', works: false, safeForClones: false, complaint: 'vdso' } },
    steps: all,
    note: /3\.17\.1 does not work here: vdso/,
  },
  {
    name: 'a crun without CRIU',
    facts: { oci: { name: 'crun', version: '1.8.1', criu: false } },
    steps: all,
    note: /built without CRIU/,
  },
  {
    name: 'no OCI runtime',
    facts: { oci: undefined, ociError: '"runc" is missing' },
    steps: all,
    note: /"runc" is missing/,
  },
  { name: 'cgroup v1', facts: { cgroup: 'v1' }, steps: all },
  { name: 'no cgroups', facts: { cgroup: undefined }, steps: all, note: /not mounted/ },
  { name: 'no user namespaces', facts: { userNamespaces: false }, steps: all, note: /switched off/ },
  {
    name: 'no systemd',
    facts: { systemd: undefined },
    steps: [all[0] ?? '', ...all.slice(2)],
    note: /systemd does not run/,
  },
  {
    name: 'no systemd, and containerd to be restarted',
    facts: { systemd: undefined },
    wishes: { restartContainerd: true },
    steps: [all[0] ?? '', ...all.slice(2)],
    note: /restart it yourself, then run stasis setup --yes again/,
  },
];

suite('setup plans', () => {
  for (const one of cases) {
    test(one.name, () => {
      const plan = makePlan(
        { ...host, ...one.facts },
        { pool: undefined, restartContainerd: false, ...one.wishes },
        { ...config, ...one.config },
      );
      const steps = plan.steps.map((step) =>
        step.kind === 'file'
          ? `file ${step.path}`
          : step.kind === 'dataset'
            ? `dataset ${step.name}`
            : step.kind,
      );
      assert.deepEqual(steps, one.steps ?? []);
      const said = (level: string): string =>
        plan.findings
          .filter((finding) => finding.level === level)
          .map(({ text, remedy }) => `${text}; ${remedy ?? ''}`)
          .join('\n');
      if (one.stop === undefined) assert.equal(said('stop'), '');
      else assert.match(said('stop'), one.stop);
      if (one.note !== undefined) assert.match(said('note'), one.note);
      for (const finding of plan.findings.filter(({ level }) => level === 'stop')) {
        assert.ok(finding.remedy, `${finding.what} has a next step`);
      }
    });
  }

  test('nothing where all is done, so that a second run changes nothing', () => {
    const first = makePlan(host, { pool: 'tank', restartContainerd: true }, config);
    const text = (path: string): string =>
      first.steps.flatMap((step) => (step.kind === 'file' && step.path === path ? [step.text] : []))[0] ?? '';
    const done: Facts = {
      ...host,
      datasets: ['tank', 'tank/stasis'],
      files: { path: MAIN, text: text(MAIN), imported: [], missing: [] },
      dropIn: text(DROP_IN),
      systemd: { unit: true, enabled: true, active: true },
    };
    const again = makePlan(
      done,
      { pool: 'tank', restartContainerd: true },
      { ...config, text: text(config.path), root: 'tank/stasis', written: text(DROP_IN) },
    );
    assert.deepEqual(again.steps, []);
  });

  test('set zfs.root and keep the rest of the configuration', () => {
    const rootOf = (before: string): string => {
      const plan = makePlan(
        host,
        { pool: 'tank/x', restartContainerd: false },
        { ...config, text: before, root: 'y' },
      );
      return (
        plan.steps.flatMap((step) =>
          step.kind === 'file' && step.path === config.path ? [step.text] : [],
        )[0] ?? ''
      );
    };
    assert.equal(
      rootOf('[zfs]\n# Where.\n#root = ""\n#x = 1\n'),
      '[zfs]\n# Where.\n#root = ""\nroot = "tank/x"\n#x = 1\n',
    );
    assert.equal(
      rootOf('[zfs]\n# x\n[shim]\n#root = 1\n'),
      '[zfs]\nroot = "tank/x"\n# x\n[shim]\n#root = 1\n',
    );
    assert.equal(rootOf('[zfs]\nroot = "y" # old\n'), '[zfs]\nroot = "tank/x" # old\n');
    assert.equal(rootOf(''), '\n[zfs]\nroot = "tank/x"\n');
  });
});
