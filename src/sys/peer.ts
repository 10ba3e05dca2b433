import type { Socket } from 'node:net';
import { check, native } from './libc.ts';

// unix(7), getsockopt(2): SO_PEERCRED gives struct ucred { pid_t pid; uid_t uid; gid_t gid; }
const getsockopt = native<[number, number, number, Buffer, Buffer]>(
  'int getsockopt(int fd, int level, int name, _Out_ uint8_t *value, _Inout_ uint8_t *length)',
);
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const UCRED_BYTES = 12;

export interface PeerCredentials {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

/**
 * Who is at the other end of a unix socket, as it was when the connection was made.
 * @returns undefined where the socket has no descriptor (closed, or not a unix socket)
 * @throws SysError
 */
export function peerCredentials(socket: Socket): PeerCredentials | undefined {
  const fd = descriptorOf(socket);
  if (fd === undefined || fd < 0) return undefined;
  const value = Buffer.alloc(UCRED_BYTES);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(UCRED_BYTES);
  check('getsockopt', getsockopt(fd, SOL_SOCKET, SO_PEERCRED, value, length));
  return { pid: value.readInt32LE(0), uid: value.readUInt32LE(4), gid: value.readUInt32LE(8) };
}

/** libuv's handle of a socket knows its descriptor; Node's own types do not tell. */
function descriptorOf(socket: Socket): number | undefined {
  const handle = (socket as unknown as { _handle?: { fd?: number } | null })._handle;
  return handle?.fd;
}
