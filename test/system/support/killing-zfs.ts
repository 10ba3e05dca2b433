import { execFileSync } from 'node:child_process';
import { chmodSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { stack } from './stack.ts';

const program = join(stack.state, 'data/tmp/zfs-that-kills');
const counter = join(stack.state, 'data/tmp/zfs-calls');

/**
 * A `zfs` that kills whoever called it before or after its Nth call (KILL_BEFORE, KILL_AFTER); of the commands in KILL_AMONG,
 * with spaces between, where there are any. The real program does the work.
 */
export const killingZfs = {
  install(): void {
    const zfs = execFileSync('sh', ['-c', 'command -v zfs'], { encoding: 'utf8' }).trim();
    writeFileSync(
      program,
      `#!/bin/sh
case " $KILL_AMONG " in "  " | *" $1 "*) ;; *) exec '${zfs}' "$@" ;; esac
exec 9>>'${counter}.lock' # several are called at once
flock 9
n=$(($(cat '${counter}' 2>/dev/null || echo 0) + 1))
echo $n >'${counter}.new' && mv '${counter}.new' '${counter}' # the test reads it at any time
exec 9>&-
[ "$KILL_BEFORE" != $n ] || { kill -9 $PPID; exit 1; }
'${zfs}' "$@"
status=$?
[ "$KILL_AFTER" != $n ] || kill -9 $PPID
exit $status
`,
    );
    chmodSync(program, 0o755);
  },

  remove(): void {
    rmSync(program);
    for (const file of [counter, `${counter}.new`, `${counter}.lock`]) rmSync(file, { force: true });
  },

  /** Edits stasisd's configuration so that it calls this. */
  use: (config: string): string => config.replace('[zfs]', `[zfs]\nzfs_path = "${program}"`),

  reset: (): void => writeFileSync(counter, '0'),

  calls: (): number => Number(readFileSync(counter, 'utf8')),

  /** Waits until the sweep of a start is over, which has more to do the more was removed before: until there was no call for a while. */
  async quiet(): Promise<void> {
    for (let before = -1; before !== killingZfs.calls(); await sleep(300)) before = killingZfs.calls();
  },
};
