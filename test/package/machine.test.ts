// The packages on a real Debian host: systemd as init, Debian's containerd and OpenZFS's kernel module, in the machine of
// scripts/vm. machine.sh has the steps.
import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { buildImage } from '../system/support/image.ts';
import { changedDeb, deb, newer, project, run } from './support.ts';

/** Where the packages are in the machine. */
const there = '/root/packages';
/** Each half takes some ten minutes on an emulated processor that nobody else uses. */
const timeoutMs = 1_700_000;

suite('a Debian 13 host with systemd, on the OpenZFS module', { timeout: 3 * timeoutMs }, () => {
  let folder: string;
  const vm = (verb: string, ...args: string[]): Promise<string> =>
    run(join(project, 'scripts/vm'), [verb, '--state', join(folder, 'vm'), ...args], { timeoutMs });

  /** Runs a half of machine.sh; a failure tells what the services have said. */
  async function half(name: 'before' | 'after'): Promise<string> {
    try {
      return await vm('run', 'bash', `${there}/machine.sh`, name, there);
    } catch (error) {
      const journal = await vm(
        'run',
        'journalctl',
        '--no-pager',
        '--lines=60',
        '-u',
        'stasisd',
        '-u',
        'containerd',
      );
      throw new Error(`${String(error)}\nThe journal:\n${journal}`, { cause: error });
    }
  }

  before(async () => {
    folder = mkdtempSync('/var/tmp/stasis-machine-');
    const from = join(folder, 'packages');
    for (const name of ['first', 'second']) mkdirSync(join(from, name), { recursive: true });
    for (const name of ['stasis', 'stasis-criu'] as const) {
      copyFileSync(deb(name, 'amd64'), join(from, 'first', `${name}.deb`));
      await changedDeb(deb(name, 'amd64'), join(from, 'second', `${name}.deb`), newer);
    }
    for (const name of ['machine.sh', 'host.sh'])
      copyFileSync(join(import.meta.dirname, name), join(from, name));
    buildImage(join(from, 'image.tar'), folder);
    // Its own clock, since the time limits of the programs in it are those of a real host.
    await vm('up', '--systemd', '--own-clock', '--quiet');
    await vm('copy', from, '/root');
  });
  after(async () => {
    await vm('down', '--quiet');
    rmSync(folder, { recursive: true });
  });

  test('install, setup, the main job through ctr, stasisd gone and killed', async () => {
    assert.match(await half('before'), /^before: ok$/m);
  });

  test('after a reboot a checkpoint is restored; upgrade, remove, purge, and the host is as it was', async () => {
    await vm('reboot', '--quiet');
    assert.match(await half('after'), /^after: ok$/m);
  });
});
