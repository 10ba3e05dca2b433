import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { pidOf, startContainer } from './container.ts';
import { ctr, must, readIfThere, stack, until } from './stack.ts';

/** Downloading and unpacking, once a machine. */
const UNPACK_TIMEOUT_MS = 500_000;

const imported = new Map<string, Promise<string>>();

/** Imports an image of busybox and Debian packages with all that they need. Answers its name. */
export function importDebian(name: string, packages: readonly string[]): Promise<string> {
  const known = imported.get(name);
  if (known !== undefined) return known;
  const image = importOnce(name, packages);
  imported.set(name, image);
  return image;
}

async function importOnce(name: string, packages: readonly string[]): Promise<string> {
  const image = `docker.io/stasis/debian-${name}:latest`;
  if ((await ctr('images', 'ls', '-q')).split('\n').includes(image)) return image;
  const script = join(stack.project, 'scripts/lib/debian-rootfs');
  const root = (await must(script, [name, ...packages], UNPACK_TIMEOUT_MS)).trim();
  const folder = mkdtempSync(join(stack.state, 'data/tmp/debian-'));
  try {
    const file = join(folder, 'image.tar');
    await must(
      join(stack.project, 'scripts/lib/image'),
      ['--name', image, '--layer', root, file],
      UNPACK_TIMEOUT_MS,
    );
    await must('ctr', ['images', 'import', '--snapshotter', 'stasis', file], UNPACK_TIMEOUT_MS);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return image;
}

/** Python, with its standard library. */
export function importPython(): Promise<string> {
  return importDebian('python', ['python3']);
}

/** Lines of Python before those of the test: `libc` is the C library, `call` a system call that must succeed. */
const prelude = `
import ctypes, fcntl, os, socket, subprocess, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    result = libc.syscall(number, *arguments)
    if result < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
`;

/**
 * Starts a container that runs lines of Python, then waits; those of `use` run as soon as somebody makes /check, and /checked
 * says how they went. Answers its process, once the first lines have run.
 * @throws with Python's own words where they failed
 */
export async function startPython(
  name: string,
  lines: string,
  flags: string[] = [],
  use = 'pass',
): Promise<number> {
  const image = await importPython();
  const body = `${prelude}
import traceback
def said(file, text):
    open(file + '.part', 'w').write(text); os.rename(file + '.part', file)
try:
${lines.replace(/^/gm, '    ')}
    said('/ready', 'ready')
except BaseException:
    said('/ready', traceback.format_exc())
while not os.path.exists('/check'): time.sleep(0.05)
try:
${use.replace(/^/gm, '    ')}
    said('/checked', 'good')
except BaseException:
    said('/checked', traceback.format_exc())
while True: time.sleep(1)
`;
  await startContainer(name, ['/usr/bin/python3', '-c', body], flags, image);
  const pid = await pidOf(name);
  if (pid === undefined) throw new Error(`container ${name} does not run`);
  const said = await until(
    'the container to be ready',
    () => readIfThere(`/proc/${pid}/root/ready`) || undefined,
  );
  if (said !== 'ready') throw new Error(`container ${name}: ${said}`);
  return pid;
}
