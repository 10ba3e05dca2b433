import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { PreparedRestore } from '../../../shim/process/restore.ts';
import type { OciRuntime, RestoreOptions } from '../../../src/oci/types.ts';

let bundle: string;
beforeEach(() => {
  bundle = mkdtempSync(join(tmpdir(), 'stasis-restore-'));
  writeFileSync(join(bundle, 'config.json'), '{}');
});
afterEach(() => rmSync(bundle, { recursive: true, force: true }));

/** Asks a CRIU twice, as runc does, and says what it did. */
function fakeRuntime(steps: string[], asksCriuFirst = true): OciRuntime {
  const ask = async ({ diskGate, signal }: RestoreOptions): Promise<void> => {
    const env = { PATH: `${diskGate ?? ''}:${bundle}/bin:/usr/bin:/bin`, STASIS_DISK_GATE: diskGate };
    const child = spawn('criu', { env, stdio: 'ignore', ...(signal === undefined ? {} : { signal }) });
    child.on('error', () => undefined); // the signal
    const [code] = (await once(child, 'close')) as [number | null];
    if (code !== 0) throw new Error(`criu ended with ${String(code)}`);
  };
  const runtime: Partial<OciRuntime> = {
    name: 'runc',
    asksCriuFirst,
    criu: () => undefined,
    async restore(options) {
      steps.push('begun');
      if (options.diskGate !== undefined) await ask(options);
      steps.push('restored');
    },
    async delete(id) {
      await Promise.resolve();
      steps.push(`deleted ${id}`);
    },
  };
  return runtime as OciRuntime;
}

const rest = { pidFile: '', stdioFds: ['ignore', 'ignore', 'ignore'], noPivot: false } as const;

async function prepare(runtime: OciRuntime): Promise<PreparedRestore> {
  mkdirSync(join(bundle, 'bin'));
  writeFileSync(join(bundle, 'bin/criu'), '#!/bin/sh\n', { mode: 0o755 });
  const [imageDir, workDir] = [join(bundle, 'image'), join(bundle, 'work')];
  return PreparedRestore.prepare(runtime, { id: 'web', bundle, imageDir, workDir });
}

test('a runtime that was begun restores nothing before the disk is there', async () => {
  const steps: string[] = [];
  await using prepared = await prepare(fakeRuntime(steps));
  prepared.begin(rest);
  assert.equal(steps.join(), 'begun');
  await prepared.run(rest, async () => {
    await new Promise((resolve) => setTimeout(resolve, 100));
    steps.push('disk');
  });
  assert.deepEqual(steps, ['begun', 'disk', 'restored']);
});

test('one that asks for nothing first is not begun', async () => {
  const steps: string[] = [];
  await using prepared = await prepare(fakeRuntime(steps, false));
  prepared.begin(rest);
  assert.equal(steps.length, 0);
  await prepared.run(rest, async () => {
    await Promise.resolve();
    steps.push('disk');
  });
  assert.deepEqual(steps, ['disk', 'begun', 'restored']);
});

test('one that is not to go on is ended, and its container forgotten', async () => {
  const steps: string[] = [];
  {
    await using prepared = await prepare(fakeRuntime(steps));
    prepared.begin(rest);
  }
  assert.deepEqual(steps, ['begun', 'deleted web']);
  assert.equal(existsSync(join(bundle, 'criu/gate')), false);
});

test('a disk that does not come ends it, and says why', async () => {
  const steps: string[] = [];
  await using prepared = await prepare(fakeRuntime(steps));
  prepared.begin(rest);
  await assert.rejects(
    prepared.run(rest, () => Promise.reject(new Error('no disk'))),
    /no disk/,
  );
  assert.deepEqual(steps, ['begun']);
});
