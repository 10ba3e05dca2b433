import { exec as runCommand, type Exec } from '../sys/command.ts';
import { bindFile } from './checks/bind-file.ts';
import { bindMount } from './checks/bind-mount.ts';
import { deletedFile } from './checks/deleted-file.ts';
import { device } from './checks/device.ts';
import { execSession } from './checks/exec-session.ts';
import { sharedCgroup } from './checks/shared-cgroup.ts';
import { fuseOwner } from './checks/fuse-owner.ts';
import { foreignFile } from './checks/foreign-file.ts';
import { foreignMount } from './checks/foreign-mount.ts';
import { interruptedSleep } from './checks/interrupted-sleep.ts';
import { ioUring } from './checks/io-uring.ts';
import { kernelObject } from './checks/kernel-object.ts';
import { nestedNamespace } from './checks/nested-namespace.ts';
import { networkLock } from './checks/network-lock.ts';
import { otherUser } from './checks/other-user.ts';
import { pipePeer } from './checks/pipe-peer.ts';
import { socketKind } from './checks/socket-kind.ts';
import { stopped } from './checks/stopped.ts';
import { tcpPeer } from './checks/tcp-peer.ts';
import { tracer } from './checks/tracer.ts';
import { unixPeer } from './checks/unix-peer.ts';
import { type ContainerFacts, type ContainerView, viewContainer } from './container-view.ts';
import type { Check, Obstacle } from './obstacle.ts';
import { kernelProc, type Proc } from './proc.ts';

const SS_TIMEOUT_MS = 10_000;

/**
 * What is in the way of a checkpoint in this container: errors first. Nothing is frozen, stopped or opened; what changes
 * meanwhile may be missed.
 */
export async function diagnose(
  facts: ContainerFacts,
  { proc = kernelProc, exec = runCommand }: { proc?: Proc; exec?: Exec } = {},
): Promise<Obstacle[]> {
  const view = viewContainer(facts, proc);
  const checks: readonly Check[] = [
    ioUring,
    kernelObject,
    device,
    socketKind,
    foreignFile,
    deletedFile,
    tracer,
    stopped,
    otherUser,
    fuseOwner,
    nestedNamespace,
    foreignMount,
    networkLock,
    unixPeer((of) => unixConnections(exec, of)),
    pipePeer,
    tcpPeer,
    execSession,
    sharedCgroup,
    interruptedSleep,
    bindMount,
    bindFile,
  ];
  const found = (await Promise.all(checks.map(async (check) => check(view)))).flat();
  return [
    ...found.filter(({ severity }) => severity === 'error'),
    ...found.filter(({ severity }) => severity !== 'error'),
  ];
}

/** All Unix sockets of the container's network namespace; nothing where `ss` is missing. */
async function unixConnections(exec: Exec, { init }: ContainerView): Promise<string> {
  const args = [`--net=/proc/${init}/ns/net`, '--', 'ss', '-H', '-x', '-a', '-n'];
  return (await exec('nsenter', args, { timeoutMs: SS_TIMEOUT_MS })).stdout;
}
