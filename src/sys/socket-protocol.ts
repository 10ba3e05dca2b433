import { native } from './libc.ts';

// getxattr(2)
const getxattr = native<[string, string, Buffer, number]>(
  'long getxattr(const char *path, const char *name, void *value, size_t size)',
);

const protocolName = Buffer.alloc(64);

/**
 * The protocol of a socket (`TCP`, `UNIX-STREAM`, `MPTCP`), by a path that leads to it, such as /proc/PID/fd/N: the kernel
 * gives it as an extended attribute (net/socket.c). Undefined for what is no socket, or gone.
 */
export function socketProtocol(path: string): string | undefined {
  const length = Number(getxattr(path, 'system.sockprotoname', protocolName, protocolName.length));
  if (length <= 0) return undefined;
  return protocolName.toString('latin1', 0, length).replace(/\0.*$/s, '');
}
