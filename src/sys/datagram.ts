import { closeSync } from 'node:fs';
import { check, native } from './libc.ts';
import { openSocket, unixAddress } from './unix-socket.ts';

// sendto(2)
const sendto = native<[number, Buffer, number, number, Buffer, number]>(
  'int64_t sendto(int fd, _In_ uint8_t *data, size_t length, int flags, _In_ uint8_t *address, uint32_t size)',
);
const SOCK_DGRAM = 2;
const MSG_NOSIGNAL = 0x4000;

/**
 * Sends one datagram to a unix socket; Node itself knows only stream sockets. A leading `@` is Linux's abstract
 * namespace.
 * @throws SysError, InvalidArgument
 */
export function sendDatagram(path: string, data: string): void {
  const address = unixAddress(path);
  const fd = openSocket(SOCK_DGRAM);
  try {
    const bytes = Buffer.from(data);
    check('sendto', sendto(fd, bytes, bytes.length, MSG_NOSIGNAL, address, address.length), path);
  } finally {
    closeSync(fd);
  }
}
