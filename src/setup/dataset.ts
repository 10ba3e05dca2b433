import { setTimeout as sleep } from 'node:timers/promises';
import { decodeText, property } from '../../snapshotter/properties.ts';
import { splitName } from '../../snapshotter/snapshot.ts';
import { NotFound } from '../errors.ts';
import { Busy, HasChildren } from '../zfs/errors.ts';
import type { Row, Zfs } from '../zfs/zfs.ts';
import { CHECK_NAMESPACE } from './self-check.ts';

const BUSY_TIMEOUT_MS = 10_000;
const BUSY_POLL_MS = 250;
/** What stasisd makes below its root before anybody uses it, and where the check's container was. */
const OWN = ['', '/layers', '/containers', '/trash', '/reading', `/containers/${CHECK_NAMESPACE}`];

/**
 * Destroys the root dataset where nobody's data is in it: stasisd's own folders hold nothing by themselves, and the
 * container of setup's check, which is in the trash for a while, was nobody's. A stasisd that was stopped a moment ago may
 * have left a command that still makes or mounts one of them, hence the patience.
 */
export async function destroyIfEmpty(zfs: Zfs, root: string): Promise<'absent' | 'used' | 'destroyed'> {
  const own = new Set(OWN.map((leaf) => root + leaf));
  const deadline = Date.now() + BUSY_TIMEOUT_MS;
  for (;;) {
    const rows = await zfs
      .list({ root, types: ['filesystem', 'snapshot'], properties: [property.key] })
      .catch((error: unknown) => {
        if (error instanceof NotFound) return [];
        throw error;
      });
    if (rows.length === 0) return 'absent';
    if (rows.some((row) => !own.has(row.name) && !isOfCheck(row))) return 'used';
    try {
      for (const { name } of rows.toReversed()) await zfs.destroy(name);
      return 'destroyed';
    } catch (error) {
      if (!(error instanceof Busy || error instanceof HasChildren) || Date.now() > deadline) throw error;
    }
    await sleep(BUSY_POLL_MS);
  }
}

/** Its memory's dataset and its snapshots inherit the key. */
function isOfCheck({ properties }: Row): boolean {
  const key = properties.get(property.key)?.value ?? '';
  return splitName(decodeText(key)).namespace === CHECK_NAMESPACE;
}
