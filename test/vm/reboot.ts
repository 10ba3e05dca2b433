import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { stack } from '../system/support/stack.ts';

/** The container that is there before and after the machine's reboot. */
export const web = 'over-reboot';

const file = join(stack.state, 'data/over-reboot.json');

/** What has to be found again. */
export interface Before {
  readonly bootId: string;
  readonly datasets: readonly string[];
  /** How far the writer had counted when its checkpoint was begun. */
  readonly count: number;
}

export const bootId = (): string => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8');
export const note = (before: Before): void => writeFileSync(file, JSON.stringify(before));
export const noted = (): Before => JSON.parse(readFileSync(file, 'utf8')) as Before;
