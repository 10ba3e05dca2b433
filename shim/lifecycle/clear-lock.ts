import { mkdirSync, openSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Unavailable } from '../../src/errors.ts';
import { closeQuietly } from '../../src/sys/descriptor.ts';
import { tryLock } from '../../src/sys/lock.ts';

const POLL_MS = 20;

/**
 * Runs a job while nobody else clears away, or makes, what a dead shim of the namespace left. The kernel takes the lock back
 * from a holder that dies.
 * @param file the namespace's lock: Paths.clearLock
 * @throws Unavailable when another holds the lock until the deadline
 */
export async function withClearLock<T>(
  file: string,
  job: () => Promise<T>,
  { timeoutMs = 30_000 } = {},
): Promise<T> {
  mkdirSync(dirname(file), { recursive: true, mode: 0o711 });
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const fd = openSync(file, 'a', 0o600);
    try {
      if (tryLock(fd)) return await job();
    } finally {
      closeQuietly(fd);
    }
    if (performance.now() >= deadline) {
      throw new Unavailable(`what a shim that died left is still being cleared away`, {
        subject: file,
        remedy: `try again; /proc/locks names the process that holds ${file}`,
      });
    }
    await sleep(POLL_MS);
  }
}
