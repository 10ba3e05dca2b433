import { readFile } from 'node:fs/promises';
import { FailedPrecondition, NotFound } from '../errors.ts';
import type { Zfs } from '../zfs/zfs.ts';
import { FORMAT, formatProperty } from '../../snapshotter/format.ts';

/** Which stasisd serves a root dataset: `<boot id> <pid> <start time of the process>`. */
const property = 'stasis:daemon';

/**
 * Makes sure that this stasisd can read the root dataset, which a newer one may have written, and that no other of this
 * host serves it: two would sweep each other's unfinished work. Call before the pool is read; `claim` writes our own
 * name afterwards, when the root exists.
 * @throws FailedPrecondition naming the format or the other process
 */
export async function assertUnclaimed(zfs: Zfs, root: string): Promise<void> {
  const rows = await zfs
    .list({ root, depth: 0, types: ['filesystem'], properties: [property, formatProperty] })
    .catch((error: unknown) => {
      if (error instanceof NotFound) return []; // a new pool
      throw error;
    });
  const format = rows[0]?.properties.get(formatProperty)?.value ?? String(FORMAT);
  if (!(Number(format) <= FORMAT)) {
    throw new FailedPrecondition(`${root} has format ${format}, and this stasisd knows ${FORMAT} and older`, {
      subject: root,
      reason: 'newer-format',
      remedy: 'install the Stasis that wrote it, or a newer one',
    });
  }
  const [boot, pid, started] = (rows[0]?.properties.get(property)?.value ?? '').split(' ');
  if (boot === undefined || pid === undefined || boot !== (await bootId())) return;
  if (Number(pid) === process.pid || (await startTime(pid)) !== started) return;
  throw new FailedPrecondition(`another stasisd, process ${pid}, serves ${root}`, {
    subject: root,
    reason: 'pool-served',
    remedy: 'stop it first, or give this one another zfs.root',
  });
}

/** Writes this process's name to the root dataset. A name that is left behind counts as long as its process lives. */
export async function claim(zfs: Zfs, root: string): Promise<void> {
  const started = (await startTime(String(process.pid))) ?? '0';
  await zfs.set(root, {
    [property]: `${await bootId()} ${process.pid} ${started}`,
    [formatProperty]: String(FORMAT),
  });
}

async function bootId(): Promise<string> {
  return (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
}

/**
 * Field 22 of proc(5)'s stat: clock ticks after boot; undefined where there is no such process, or where it has
 * ended and only waits for its parent.
 */
async function startTime(pid: string): Promise<string | undefined> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
  const fields = text?.slice(text.lastIndexOf(')') + 2).split(' ');
  return fields === undefined || fields[0] === 'Z' || fields[0] === 'X' ? undefined : fields[19];
}
