import type { Server } from 'node:net';

/** Has a server listen at a unix socket that is for this user alone from its first moment. @throws an Error of listen(2) */
export async function listenPrivately(listener: Server, path: string): Promise<void> {
  const before = process.umask(0o177);
  try {
    await new Promise<void>((resolve, reject) => {
      listener.once('error', reject);
      listener.listen(path, resolve);
    });
  } finally {
    process.umask(before);
  }
}
