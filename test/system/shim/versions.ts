// Versions of the shim that are put into the place of one another, ahead of the stack's own shim on containerd's PATH.
import { mkdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { TaskDefinition } from '../../../src/proto/gen/containerd/task.ts';
import { Client } from '../../../ttrpc/index.ts';
import { stack } from '../support/stack.ts';
import { shimSocket } from './shims.ts';

const folder = join(stack.state, 'drop-in');
export const launcher = join(folder, 'containerd-shim-stasis-v2');
export const lib = join(folder, 'lib');
const dist = join(stack.project, 'dist');

/** Before the first version. */
export function prepareVersions(): void {
  mkdirSync(lib, { recursive: true });
  symlinkSync(join(stack.project, 'node_modules'), join(folder, 'node_modules'));
}

export function removeVersions(): void {
  rmSync(folder, { recursive: true });
}

const { version: built } = JSON.parse(readFileSync(join(stack.project, 'package.json'), 'utf8')) as {
  version: string;
};

/**
 * Puts a version's files into their places, each by a rename, as a package manager does.
 * @param change what else is different in its programs
 */
export function install(version: string, change = (text: string, _name: string): string => text): void {
  const replace = (path: string, from: string, edit: (text: string) => string): void => {
    writeFileSync(`${path}.new`, edit(readFileSync(from, 'utf8')), { mode: 0o755 });
    renameSync(`${path}.new`, path);
  };
  for (const name of ['shim.mjs', 'guard.mjs']) {
    const edit = (text: string): string => change(text.replaceAll(`"${built}"`, `"${version}"`), name);
    replace(join(lib, name), join(dist, 'lib', name), edit);
  }
  replace(join(lib, 'criu-when-ready'), join(dist, 'lib/criu-when-ready'), (text) => text);
  const main = `main='${join(lib, 'shim.mjs')}'`;
  replace(launcher, join(dist, 'containerd-shim-stasis-v2'), (text) => text.replace(/^main=.*$/m, main));
}

/** Which shim holds a container, and of which version it is. */
export async function shimOf(name: string): Promise<{ pid: number; version: string }> {
  const client = await Client.connect(shimSocket(name));
  try {
    const { shimPid, version } = await client.service(TaskDefinition).connect({ id: name });
    return { pid: shimPid, version };
  } finally {
    client.close();
  }
}
