import { closeSync } from 'node:fs';
import { InvalidArgument } from '../errors.ts';
import { check, native } from './libc.ts';

// socket(2), connect(2), unix(7): struct sockaddr_un { sa_family_t family; char path[108]; }
const socket = native<[number, number, number]>('int socket(int domain, int type, int protocol)');
const connect = native<[number, Buffer, number]>('int connect(int fd, _In_ uint8_t *address, uint32_t size)');
const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const PATH_BYTES = 108;

/** The address of a unix socket. A leading `@` is Linux's abstract namespace. @throws InvalidArgument */
export function unixAddress(path: string): Buffer {
  const name = Buffer.from(path.startsWith('@') ? `\0${path.slice(1)}` : path);
  if (name.length === 0 || name.length >= PATH_BYTES)
    throw new InvalidArgument(`no socket can be named ${path}`);
  const address = Buffer.alloc(2 + name.length);
  address.writeUInt16LE(AF_UNIX, 0); // both processors that we run on are little-endian
  name.copy(address, 2);
  return address;
}

/** A unix socket of this type, closed in programs that are started. @throws SysError */
export function openSocket(type: number): number {
  return check('socket', socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
}

/**
 * Connects to a stream socket, for what Node's own sockets cannot do. Never waits.
 * @returns a descriptor whose reads and writes do not wait either; the caller closes it
 * @throws SysError: ENOENT, ECONNREFUSED, EAGAIN where too many wait to be accepted; InvalidArgument
 */
export function connectStream(path: string): number {
  const address = unixAddress(path);
  const fd = openSocket(SOCK_STREAM | SOCK_NONBLOCK);
  try {
    check('connect', connect(fd, address, address.length), path);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}
