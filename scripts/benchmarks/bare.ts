// The least that a clone can cost: `zfs clone` of the disk and a bare `criu restore` of the same images, by hand.
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { run } from './measure.ts';

const criu = process.env['STASIS_CRIU'] ?? 'criu';

interface Checkpoint {
  snapshot: string;
}

/**
 * Milliseconds for one bare clone of a checkpoint, from the first command to CRIU's end, when the process runs. CRIU
 * gets what runc would give it: the new root, and the mounts that the container's spec makes.
 */
export function bareClone(container: string, name: string): number {
  const inspected = JSON.parse(run('stasis', 'inspect', container, name, '--json')) as {
    checkpoint: Checkpoint;
    memoryDataset?: string;
    datasetMemory?: string;
  };
  const { snapshot } = inspected.checkpoint;
  const [dataset = ''] = snapshot.split('@');
  const work = mkdtempSync('/dev/shm/stasis-bare-');
  const root = process.env['STASIS_ROOT'] ?? '';
  const clone = `${root}/bare-${process.pid}`;
  const images = `${root}/bare-images-${process.pid}`;
  mkdirSync(join(work, 'disk'));
  mkdirSync(join(work, 'images'));
  mkdirSync(join(work, 'root'));
  // The image is read from a clone of its dataset too, made before the clock starts.
  run('zfs', 'clone', '-o', `mountpoint=${work}/images`, `${dataset}/memory@${name}`, images);
  const begin = process.hrtime.bigint();
  run('zfs', 'clone', '-o', `mountpoint=${work}/disk`, snapshot, clone);
  run('mount', '--rbind', `${work}/disk/rootfs`, `${work}/root`);
  run(
    criu,
    'restore',
    '--images-dir',
    `${work}/images/image`,
    '--work-dir',
    work,
    '--log-file',
    'restore.log',
    '--root',
    `${work}/root`,
    '--restore-detached',
    '--pidfile',
    `${work}/pid`,
    '--manage-cgroups=ignore',
    '--mntns-compat-mode',
    ...externals(container),
  );
  const milliseconds = Number(process.hrtime.bigint() - begin) / 1e6;
  const pid = readFileSync(`${work}/pid`, 'utf8').trim();
  run('kill', '-9', pid);
  run(
    'sh',
    '-c',
    `while kill -0 ${pid} 2>/dev/null; do sleep 0.01; done; umount ${work}/root; sleep 0.05; stat -f ${work}/disk ${work}/images >/dev/null; sleep 0.05; zfs destroy ${clone}; zfs destroy ${images}`,
  );
  rmSync(work, { recursive: true, force: true });
  return milliseconds;
}

/** What runc tells CRIU of a container's surroundings: descriptors 0 to 2 are /dev/null's in a `--null-io` task. */
function externals(_container: string): string[] {
  return [];
}
