import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  checkpointName,
  clonePattern,
  containerName,
  datasetName,
  namespaceName,
} from '../../../src/cli/names.ts';
import { printable } from '../../../src/cli/text.ts';
import { InvalidArgument } from '../../../src/errors.ts';
import { stasis } from './harness.ts';

const hostile = [
  '',
  ' ',
  '-',
  '--name',
  '.',
  '..',
  '../x',
  'a/b',
  'a b',
  'a\nb',
  'a\0b',
  'a\u001b[31mb',
  'ä',
  '容器',
  'a@b',
  'a%b',
  '$(id)',
  '`id`',
  "a'b",
  'a"b',
  'a;b',
  'a\\b',
  'a\u202eb',
  '_a',
  'a|b',
  '*',
];

test('names that containerd would refuse are refused as containers and namespaces', () => {
  for (const name of [...hostile, 'a..b', 'a.', 'a--b', 'a:b', 'x'.repeat(77)]) {
    assert.throws(() => containerName(name), InvalidArgument, JSON.stringify(name));
    assert.throws(() => namespaceName(name), InvalidArgument, JSON.stringify(name));
  }
  for (const name of ['a', 'web-1', 'k8s.io', 'a_b.c-d', '0', 'x'.repeat(76)]) {
    assert.equal(containerName(name), name);
  }
});

test('checkpoint names take what a ZFS snapshot takes, and no more', () => {
  for (const name of [...hostile, ':a', 'a:b', 'x'.repeat(65)]) {
    assert.throws(() => checkpointName(name), InvalidArgument, JSON.stringify(name));
  }
  for (const name of ['a', 'before-upgrade', 'a..b', 'v1.2_3', 'checkpoint-1767323045', 'x'.repeat(64)]) {
    assert.equal(checkpointName(name), name);
  }
});

test('dataset names cannot be options or leave the pool', () => {
  for (const name of ['', '-r', '/tank', 'tank/', 'tank//a', 'tank@a', 'tank/a\nb', 'x'.repeat(256)]) {
    assert.throws(() => datasetName(name), InvalidArgument, JSON.stringify(name));
  }
  assert.equal(datasetName('tank/stasis/containers/default/web 1'), 'tank/stasis/containers/default/web 1');
});

test('a pattern must give every clone a name of its own, and a legal one', () => {
  assert.equal(clonePattern('{source}-{}', 'web', 3), '{source}-{}');
  assert.equal(clonePattern('copy', 'web', 1), 'copy');
  assert.throws(() => clonePattern('', 'web', 1), /--name is empty/);
  assert.throws(() => clonePattern('copy', 'web', 2), InvalidArgument);
  assert.throws(() => clonePattern('{source}/{}', 'web', 2), InvalidArgument);
  assert.throws(() => clonePattern('-{}', 'web', 2), InvalidArgument);
  assert.throws(() => clonePattern('x'.repeat(75) + '{}', 'web', 10), InvalidArgument);
});

test('a hostile name ends with exit code 2 before anything is sent, and cannot reach the terminal', async () => {
  for (const name of hostile.filter((one) => !one.startsWith('-'))) {
    const { code, stderr, stdout } = await stasis(['checkpoint', name, '--socket', '/nowhere']);
    assert.equal(code, 2, JSON.stringify(name));
    assert.equal(stdout, '');
    assert.match(stderr, /^stasis: ".*" is not a container name\n {2}next: .+\n$/);
    const flat = stderr.replaceAll('\n', ' ');
    assert.equal(printable(flat), flat);
  }
});
