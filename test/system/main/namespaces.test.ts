import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { uniqueName } from '../support/container.ts';
import { attempt, ctr, image, importImage, must, runtime, stack, stasis } from '../support/stack.ts';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';

suite('namespaces of containerd', () => {
  const other = uniqueName('ns');
  const name = uniqueName('web');
  const folder = mkdtempSync(join(stack.state, 'data/tmp/namespaces-'));
  before(importImage);
  after(async () => {
    await attempt('ctr', ['-n', other, 'tasks', 'rm', '-f', name]);
    await attempt('ctr', ['-n', other, 'containers', 'rm', name]);
    await attempt('stasis', ['-n', other, 'rm', name, 'c']);
    await attempt('ctr', ['-n', other, 'images', 'rm', '--sync', image]);
    await attempt('ctr', ['namespaces', 'rm', other]);
    if (existsSync(folder)) rmSync(folder, { recursive: true });
  });

  test('an image of one namespace can be had in another, its layers without being unpacked again where the client names them', async () => {
    await ctr('images', 'export', join(folder, 'image.tar'), image);
    const layers = (): Promise<string> =>
      must('zfs', ['list', '-H', '-r', '-o', 'name', `${stack.root}/layers`]);
    const before = await layers();
    await ctr('-n', other, 'images', 'import', '--snapshotter', 'stasis', join(folder, 'image.tar'));
    // A client that unpacks by itself (ctr of 1.6) does not say which layer it is about to make.
    const told = await must('zfs', [
      'get',
      '-H',
      '-r',
      '-o',
      'value',
      'stasis:labels',
      `${stack.root}/layers`,
    ]);
    if (told.includes('containerd.io/snapshot.ref')) assert.equal(await layers(), before);
    assert.equal(
      await ctr(
        '-n',
        other,
        'run',
        '--rm',
        '--runtime',
        runtime,
        '--snapshotter',
        'stasis',
        image,
        uniqueName(),
        'echo',
        'here',
      ),
      'here\n',
    );
  });

  test('each sees its own checkpoints alone', async () => {
    await ctr(
      '-n',
      other,
      'run',
      '-d',
      '--null-io',
      '--runtime',
      runtime,
      '--snapshotter',
      'stasis',
      image,
      name,
      'sleep',
      '1000',
    );
    await stasis('-n', other, 'checkpoint', name, '--name', 'c', '--require-memory');
    assert.match(await stasis('-n', other, 'ls', '--json'), new RegExp(`"${name}"`));
    assert.doesNotMatch(await stasis('ls', '--json'), new RegExp(`"${name}"`));
    assert.match(await stasis('ls', '--all-namespaces', '--json'), new RegExp(`"${name}"`));
    await stasis('-n', other, 'restore', name, '--require-memory');
  });
});
