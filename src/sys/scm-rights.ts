import { hasErrno } from '../errors.ts';
import { check, native, struct } from './libc.ts';

// recvmsg(2), sendmsg(2), unix(7), cmsg(3). The layouts are those of 64-bit Linux.
struct('iovec', { iov_base: 'void *', iov_len: 'size_t' });
struct('msghdr', {
  msg_name: 'void *',
  msg_namelen: 'uint32_t',
  msg_iov: 'iovec *',
  msg_iovlen: 'size_t',
  msg_control: 'void *',
  msg_controllen: 'size_t',
  msg_flags: 'int',
});

interface MessageHeader {
  msg_name: null;
  msg_namelen: number;
  msg_iov: { iov_base: Buffer; iov_len: number }[];
  msg_iovlen: number;
  msg_control: Buffer;
  msg_controllen: number;
  msg_flags: number;
}

const recvmsg = native<[number, MessageHeader, number]>(
  'long recvmsg(int socket, _Inout_ msghdr *message, int flags)',
);

const sendmsg = native<[number, MessageHeader, number]>(
  'long sendmsg(int socket, _In_ msghdr *message, int flags)',
);

const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;
const CMSG_HEADER = 16;

/**
 * Receives a file descriptor that a peer sends over a unix socket, with the message it comes with.
 * Undefined while nothing has arrived, so that callers can wait without blocking.
 * @throws SysError; an Error when a message, or the end, comes without a descriptor
 */
export function receiveDescriptor(socket: number): { fd: number; message: string } | undefined {
  const data = Buffer.alloc(4096);
  const control = Buffer.alloc(64);
  const header: MessageHeader = {
    msg_name: null,
    msg_namelen: 0,
    msg_iov: [{ iov_base: data, iov_len: data.length }],
    msg_iovlen: 1,
    msg_control: control,
    msg_controllen: control.length,
    msg_flags: 0,
  };
  let length: number;
  try {
    length = Number(
      check('recvmsg', recvmsg(socket, header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC), String(socket)),
    );
  } catch (error) {
    if (hasErrno(error, 'EAGAIN')) return undefined;
    throw error;
  }
  const isRights = control.readInt32LE(8) === SOL_SOCKET && control.readInt32LE(12) === SCM_RIGHTS;
  if (Number(header.msg_controllen) < CMSG_HEADER + 4 || !isRights) {
    throw new Error(length === 0 ? 'the peer closed the socket' : 'a message came without a descriptor');
  }
  return { fd: control.readInt32LE(CMSG_HEADER), message: data.toString('utf8', 0, length) };
}

/**
 * Sends a file descriptor over a unix socket, with a byte that it comes with. The peer has it then, whatever becomes of ours.
 * @throws SysError; EAGAIN where the socket is full
 */
export function sendDescriptor(socket: number, fd: number): void {
  const control = Buffer.alloc(CMSG_HEADER + 8);
  control.writeBigUInt64LE(BigInt(CMSG_HEADER + 4), 0);
  control.writeInt32LE(SOL_SOCKET, 8);
  control.writeInt32LE(SCM_RIGHTS, 12);
  control.writeInt32LE(fd, CMSG_HEADER);
  const header: MessageHeader = {
    msg_name: null,
    msg_namelen: 0,
    msg_iov: [{ iov_base: Buffer.alloc(1), iov_len: 1 }],
    msg_iovlen: 1,
    msg_control: control,
    msg_controllen: control.length,
    msg_flags: 0,
  };
  check('sendmsg', sendmsg(socket, header, MSG_DONTWAIT | MSG_NOSIGNAL), String(socket));
}
