import { closeSync } from 'node:fs';
import { InvalidArgument } from '../errors.ts';
import { check, native } from './libc.ts';

// socket(2), sendto(2), unix(7): struct sockaddr_un { sa_family_t family; char path[108]; }
const socket = native<[number, number, number]>('int socket(int domain, int type, int protocol)');
const sendto = native<[number, Buffer, number, number, Buffer, number]>(
  'int64_t sendto(int fd, _In_ uint8_t *data, size_t length, int flags, _In_ uint8_t *address, uint32_t size)',
);
const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const MSG_NOSIGNAL = 0x4000;
const PATH_BYTES = 108;

/**
 * Sends one datagram to a unix socket; Node itself knows only stream sockets. A leading `@` is Linux's abstract
 * namespace.
 * @throws SysError, InvalidArgument
 */
export function sendDatagram(path: string, data: string): void {
  const name = Buffer.from(path.startsWith('@') ? `\0${path.slice(1)}` : path);
  if (name.length === 0 || name.length >= PATH_BYTES)
    throw new InvalidArgument(`no socket can be named ${path}`);
  const address = Buffer.alloc(2 + name.length);
  address.writeUInt16LE(AF_UNIX, 0); // both processors that we run on are little-endian
  name.copy(address, 2);
  const fd = check('socket', socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  try {
    const bytes = Buffer.from(data);
    check('sendto', sendto(fd, bytes, bytes.length, MSG_NOSIGNAL, address, address.length), path);
  } finally {
    closeSync(fd);
  }
}
