// What the tests of the packages share: where the packages are, a Debian tree to install them in, and a session in it.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { copyFileSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { type CommandOptions, exec } from '../../src/sys/command.ts';

export const project = join(import.meta.dirname, '../..');
const folder = process.env['STASIS_PACKAGES'] ?? '';

/** The folder that `scripts/test --only package` has built both processors' packages into. */
export function packages(): string {
  assert.notEqual(folder, '', 'STASIS_PACKAGES has to name the folder with the packages: see scripts/test');
  return folder;
}

/** The path of a package in a folder. */
export function deb(name: 'stasis' | 'stasis-criu', arch: 'amd64' | 'arm64', from = packages()): string {
  const found = readdirSync(from).filter(
    (file) => file.startsWith(`${name}_`) && file.endsWith(`_${arch}.deb`),
  );
  assert.equal(found.length, 1, `one ${name} for ${arch} in ${from}`);
  return join(from, found[0] ?? '');
}

/** Runs a program that has to succeed; its output, both streams after each other. */
export async function run(
  file: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<string> {
  const { exitCode, stdout, stderr, signal } = await exec(file, args, { timeoutMs: 540_000, ...options });
  assert.equal(exitCode, 0, `${file} ${args.join(' ')} (${signal ?? exitCode}):\n${stdout}\n${stderr}`);
  return stdout + stderr;
}

/** A folder on the disk, as overlayfs needs it, that goes with the test. */
export function scratch(t: { after: (work: () => void) => void }, name: string): string {
  const path = mkdtempSync(`/var/tmp/stasis-${name}-`);
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** What is in the tree beside Debian's smallest: what the packages depend on, and recommend. */
const included = ['containerd', 'runc', 'iproute2', 'iptables', 'zfs-fuse', 'ca-certificates'];

/** A Debian tree as it comes, with what the packages need; made once and kept in the cache. */
export async function debianTree(): Promise<string> {
  const key = createHash('sha256').update(included.join()).digest('hex').slice(0, 8);
  const tree = join(process.env['STASIS_CACHE'] ?? '/var/cache/stasis', `debian-bookworm-${key}`);
  const script = `set -euo pipefail
    . "$1/scripts/lib/common.sh"; . "$1/scripts/lib/prefix.sh"
    [ ! -d "$2" ] || exit 0
    rm -rf "$2.part"; mkdir -p "$(dirname "$2")"
    run_logged 'a tree of Debian bookworm' debootstrap --variant=minbase --keyring="$(debian_keyring)" \\
      --include="$3" bookworm "$2.part" "$(debian_mirror)"
    mv "$2.part" "$2"`;
  await run('bash', ['-c', script, '-', project, tree, included.join()]);
  return tree;
}

/**
 * A package with what the tests change of it: another version, or maintainer scripts that can be cut off. Uncompressed,
 * since it is for one test.
 */
export async function changedDeb(
  from: string,
  to: string,
  change: (folder: string) => Promise<unknown>,
): Promise<void> {
  const folder = mkdtempSync('/var/tmp/stasis-changed-');
  try {
    await run('dpkg-deb', ['-R', from, folder]);
    await change(folder);
    await run('dpkg-deb', ['-Znone', '--build', folder, to]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Gives an unpacked package a newer version. */
export async function newer(folder: string): Promise<void> {
  await run('sed', ['-i', 's/^Version: .*/&+b2/', join(folder, 'DEBIAN/control')]);
}

/** Runs a script of this folder as root of the tree, with the packages' folder, which gets the script, at /mnt/packages. */
export async function inTree(tree: string, at: string, script: string, from: string): Promise<string> {
  for (const name of [script, 'host.sh']) copyFileSync(join(import.meta.dirname, name), join(from, name));
  return run(join(import.meta.dirname, 'enter.sh'), [tree, at, 'bash', `/mnt/packages/${script}`], {
    env: { PATH: process.env['PATH'] ?? '', PACKAGES: from },
    timeoutMs: 1_500_000,
  });
}
