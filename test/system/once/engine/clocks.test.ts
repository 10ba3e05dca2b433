import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { takeInstant } from '../../../../src/checkpoint/instant.ts';
import { until } from '../../support/stack.ts';
import { Lab, missing, refusedByCrun } from './lab.ts';

/** Seconds of CLOCK_BOOTTIME, as they are where the file was written. */
const seconds = async (path: string): Promise<number> =>
  Number((await readFile(path, 'utf8').catch(() => '')).split(' ')[0]);

for (const variable of ['STASIS_RUNC', 'STASIS_RUNC_NEW', 'STASIS_CRUN']) {
  const lacks =
    missing() ??
    ((process.env[variable] ?? '') === '' ? variable : undefined) ??
    (variable === 'STASIS_CRUN' ? refusedByCrun() : undefined);
  describe(
    `clocks after a restore, ${variable}`,
    { skip: lacks === undefined ? false : `needs ${lacks}` },
    () => {
      test('what joins a restored container has its clocks, not those of the host', async () => {
        const lab = await Lab.open(process.env[variable]);
        try {
          const script = 'while :; do read up rest </proc/uptime; echo $up >/clock; sleep 0.01; done';
          const first = await lab.start({ args: ['/bin/sh', '-c', script] });
          await until('the clock', async () =>
            (await seconds(join(first.rootfs, 'clock'))) > 0 ? true : undefined,
          );
          const plan = lab.plan(first, 'one');
          await takeInstant(first.target, plan, lab.tools, new AbortController().signal);
          await lab.remove(first);
          await sleep(3000);
          const { running } = await lab.restore(plan.disk.snapshot, plan.memory.imageDir);
          const processFile = join(running.bundle, 'exec.json');
          const args = [
            '/bin/sh',
            '-c',
            // The file is empty for the moment between its truncation and its text.
            'own=; while [ -z "$own" ]; do read up rest </proc/uptime; read own </clock; done; echo $up $own >/joined',
          ];
          await writeFile(processFile, JSON.stringify({ args, cwd: '/', user: { uid: 0, gid: 0 }, env: [] }));
          await running.runtime.exec({
            id: running.id,
            processFile,
            pidFile: join(running.bundle, 'exec.pid'),
            stdioFds: ['ignore', 'ignore', 'ignore'],
            detach: false,
            init: running.pid,
          });
          const said = await readFile(join(running.rootfs, 'joined'), 'utf8');
          const [joined = 0, own = 0] = said.split(' ').map(Number);
          const host = await seconds('/proc/uptime');
          assert.ok(
            Math.abs(joined - own) < 2,
            `joined at ${joined}, while the container's clock says ${own}`,
          );
          assert.ok(host - joined > 2.5, `the host's clock says ${host}, the container's ${joined}`);
        } finally {
          await lab.close();
        }
      });
    },
  );
}
