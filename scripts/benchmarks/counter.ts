// The containers that group `main` measures: they count, and hold as much memory as asked.
import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { run } from './measure.ts';

const ours = 'io.containerd.stasis.v2';
const theirs = 'io.containerd.runc.v2';

/**
 * A shell that counts, and an awk beside it that holds the memory. Neither starts a process while it counts: CRIU
 * cannot seize one that is just being forked by vfork(2), and then its dump fails. The awk waits at a FIFO that the
 * shell holds open: one whose last writer went would wake it, and it would end, and its memory with it. A number that somebody
 * writes to /never is added to its own, see `spoil`.
 * @param megabytes of memory
 * @param written megabytes of its root file system that it writes before it counts
 */
export function counter(megabytes: number, written: number): string[] {
  const write = written === 0 ? '' : `dd if=/dev/urandom of=/written bs=1M count=${written}; `;
  const ballast = `s = sprintf("%1048576s", "x"); while (length(s) < ${megabytes} * 1048576) s = s s; print 1 > "/ready"; close("/ready"); getline < "/held"`;
  return [
    'sh',
    '-c',
    `${write}mkfifo /never /held; exec 9<>/held; awk 'BEGIN { ${ballast} }' & while ! [ -e /ready ]; do sleep 0.1; done; ` +
      'n=0; while :; do n=$((n + 1)); echo $n >/count; read -t 0.002 x <>/never && n=$((n + x)); done',
  ];
}

export function start(
  name: string,
  side: 'ours' | 'theirs',
  image: string,
  megabytes: number,
  written = 0,
): void {
  const [runtime, snapshotter] = side === 'ours' ? [ours, 'stasis'] : [theirs, 'overlayfs'];
  run(
    'ctr',
    'run',
    '-d',
    '--null-io',
    '--runtime',
    runtime,
    '--snapshotter',
    snapshotter,
    image,
    name,
    ...counter(megabytes, written),
  );
  waitForNumber(name, 5);
  assertHeld(pidOf(name), megabytes);
}

/** @throws where a container and its children do not hold as much memory as they are measured for */
export function assertHeld(pid: number, megabytes: number): void {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean);
  const held = [pid, ...children.map(Number)]
    .map((process) => Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${process}/status`, 'utf8'))?.[1]))
    .reduce((sum, kib) => sum + kib / 1024, 0);
  if (!(held >= megabytes)) throw new Error(`it holds ${held.toFixed(1)} MB in place of ${megabytes} MB`);
}

export function remove(name: string): void {
  run('sh', '-c', `ctr tasks rm -f ${name}; ctr containers rm ${name}; true`);
}

export function pidOf(name: string): number {
  const line = run('ctr', 'tasks', 'ls')
    .split('\n')
    .find((text) => text.startsWith(`${name} `));
  return Number(line?.trim().split(/\s+/)[1] ?? 0);
}

export function numberOf(pid: number): number {
  try {
    return Number(readFileSync(`/proc/${pid}/root/count`, 'utf8').trim());
  } catch {
    return 0;
  }
}

/** What `spoil` adds to a number. */
export const JUMP = 1_000_000_000;

/** Changes a container's memory, and a file that its memory knows nothing of: `/spoiled`. Returns when both can be seen. */
export function spoil(pid: number): void {
  const root = `/proc/${pid}/root`;
  writeFileSync(`${root}/spoiled`, '');
  const fifo = openSync(`${root}/never`, 'r+'); // held until it is read: a FIFO that nobody has open forgets
  try {
    untilNumber(() => {
      writeSync(fifo, `${JUMP}\n`); // each time: a read that is out of time within a line has taken its beginning
      return numberOf(pid);
    }, JUMP);
  } finally {
    closeSync(fifo);
  }
}

function waitForNumber(name: string, least: number): void {
  const pid = pidOf(name);
  untilNumber(() => numberOf(pid), least);
}

/** @returns the number, once it is that much */
export function untilNumber(number: () => number, least: number): number {
  const deadline = Date.now() + 300_000;
  for (;;) {
    const now = number();
    if (now >= least) return now;
    if (Date.now() > deadline) throw new Error(`it does not count to ${least}`);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
  }
}
