import { eachDescriptor } from '../container-view.ts';
import type { Check } from '../obstacle.ts';

/** Protocols that CRIU has no image for, by the kernel's name of them (`struct proto`). */
const unknown =
  /^(?:MPTCP|MPTCPv6|SCTP|SCTPv6|DCCP|DCCPv6|SMC|SMC6|AF_VSOCK|ALG|XDP|TIPC|RDS|KCM|L2TP.*|PPPOE|CAN.*|ISOTP|BLUETOOTH|RFCOMM|SCO|L2CAP|HCI|QIPCRTR|IUCV|X25|NFC.*)$/;

/** Sockets of kinds that CRIU cannot dump. */
export const socketKind: Check = (view) => {
  const found = [];
  for (const { descriptor, subject } of eachDescriptor(view)) {
    if (!descriptor.target.startsWith('socket:')) continue;
    const protocol = view.proc.socketProtocol(descriptor.path);
    if (protocol === undefined || !unknown.test(protocol)) continue;
    const multipath = protocol.startsWith('MPTCP');
    found.push({
      name: 'socket-kind',
      severity: 'error' as const,
      subject,
      message: `a socket of the kind ${protocol}, which CRIU cannot dump`,
      remedy: multipath
        ? 'have the program use plain TCP: one written in Go with GODEBUG=multipathtcp=0'
        : 'close it before a checkpoint, or take it with --disk-only',
    });
  }
  return found;
};
