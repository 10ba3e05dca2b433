// A process that opens a root dataset, does one thing there, and kills itself at a command of ZFS. Arguments as JSON, see `Doomed`.
import { exec, type Exec } from '../../../src/sys/command.ts';
import { ZfsMounter } from '../../../src/zfs/mounter.ts';
import { openZfs } from '../../../src/zfs/zfs.ts';
import { SnapshotStore } from '../../../snapshotter/store.ts';
import { steps, type Step } from './snapshotter-steps.ts';

export interface Doomed {
  root: string;
  mounts: string;
  owner: string;
  step: Step;
  id: string;
  /** Which command that changes something (from 0), and whether before or after it; it lives where there are fewer. */
  nth: number;
  when: 'before' | 'after';
}

const changing = new Set(['create', 'clone', 'snapshot', 'destroy', 'promote', 'rename', 'set', 'inherit']);
const { root, mounts, owner, step, id, nth, when } = JSON.parse(process.argv[2] ?? '') as Doomed;
let armed = false;
let count = 0;
const deadly: Exec = async (file, args, options) => {
  if (!armed || !changing.has(args[0] ?? '')) return exec(file, args, options);
  const doomed = count++ === nth;
  if (doomed && when === 'before') process.kill(process.pid, 'SIGKILL');
  const result = await exec(file, args, options);
  if (doomed) process.kill(process.pid, 'SIGKILL');
  return result;
};
const zfs = await openZfs(deadly, undefined, { direct: false });
const store = new SnapshotStore({
  zfs,
  mounter: new ZfsMounter(zfs, root, mounts),
  root,
  owner,
  trashGrace: 0,
});
await store.load();
armed = true;
await steps[step].run(store, id);
