import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { stack } from '../system/support/stack.ts';

/** Everything on the machine that still bears one of the names, each as `kind: what`; waits a little for it to go. */
export async function leftovers(names: readonly string[], folders: readonly string[]): Promise<string[]> {
  const deadline = Date.now() + 10_000;
  for (;;) {
    const found = [...files(names, folders), ...processes(names), ...mounts(names), ...cgroups(names)];
    if (found.length === 0 || Date.now() > deadline) return found.sort();
    await sleep(50);
  }
}

function bears(text: string, names: readonly string[]): boolean {
  return names.some((name) => text.includes(name));
}

function files(names: readonly string[], folders: readonly string[]): string[] {
  const places = [
    ...['io.containerd.runtime.v2.task/default', 'io.containerd.runtime.v1.linux/default'].flatMap(
      (place) => [join(stack.state, 'containerd/state', place), join(stack.state, 'data/containerd', place)],
    ),
    join(stack.state, 'data/tmp'),
    join(stack.state, 'run/oci/default'),
    join(stack.state, 'run/staging'),
    '/run/containerd/runc/default',
    '/run/stasis',
    '/run/runc',
  ];
  const named = places.flatMap((place) => entries(place).filter((path) => bears(path, names)));
  // Our shim keeps its answer to containerd's `delete` for a minute, and nothing beside it: the launcher prints it.
  const kept = entries(join(stack.state, 'run/tasks/default'))
    .filter((path) => bears(path, names))
    .flatMap(entries)
    .filter((path) => !path.endsWith('/deleted'));
  const fifos = entries('/run/containerd/fifo').flatMap((path) => entries(path));
  return [...named, ...kept, ...fifos.filter((path) => bears(path, names)), ...folders.flatMap(entries)].map(
    (path) => `file: ${path}`,
  );
}

function entries(folder: string): string[] {
  try {
    return readdirSync(folder).map((name) => join(folder, name));
  } catch {
    return []; // not there, or gone meanwhile
  }
}

/** Processes of the containers (by their environment) and of those who serve them (by their arguments). */
function processes(names: readonly string[]): string[] {
  return readdirSync('/proc').flatMap((pid) => {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) return [];
    const args = read(`/proc/${pid}/cmdline`).split('\0').join(' ').trim();
    const environment = read(`/proc/${pid}/environ`).split('\0');
    const contained = names.some((name) => environment.includes(`PARITY=${name}`));
    // The resident shim stays, and goes by the name of the container that it was first started for.
    const serving = bears(args, names) && !args.includes('/shim.mjs');
    return contained || serving ? [`process: ${args}`] : [];
  });
}

function mounts(names: readonly string[]): string[] {
  return read('/proc/self/mountinfo')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((point) => bears(point, names))
    .map((point) => `mount: ${point}`);
}

function cgroups(names: readonly string[]): string[] {
  const root = '/sys/fs/cgroup';
  return [root, ...entries(root)]
    .flatMap((hierarchy) => [...entries(hierarchy), ...entries(join(hierarchy, 'default'))])
    .filter((path) => bears(path, names))
    .map((path) => `cgroup: ${path}`);
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return ''; // the process has ended
  }
}
