import { nameProcess } from '../container-view.ts';
import type { Check } from '../obstacle.ts';

/** CAP_SYS_RESOURCE, capabilities(7). */
const SYS_RESOURCE = 24n;

/**
 * Processes of other users on a host whose root has no CAP_SYS_RESOURCE, as inside another container: CRIU reads the limits
 * of each, and prlimit(2) lets it do so of its own user's alone. Over a user namespace that root has made it has every
 * capability.
 */
export const otherUser: Check = ({ proc, processes }) => {
  const own = proc.read('/proc/self/status');
  const capabilities = /^CapEff:\s*([0-9a-f]+)$/m.exec(own)?.[1];
  if (capabilities === undefined || (BigInt(`0x${capabilities}`) >> SYS_RESOURCE) & 1n) return [];
  const us = { uid: idsOf(own, 'Uid')[0], gid: idsOf(own, 'Gid')[0] };
  const namespace = proc.link('/proc/self/ns/user');
  return processes
    .filter(({ pid }) => {
      const status = proc.read(`/proc/${pid}/status`);
      const isOurs = ofOne(idsOf(status, 'Uid'), us.uid) && ofOne(idsOf(status, 'Gid'), us.gid);
      return !isOurs && proc.link(`/proc/${pid}/ns/user`) === namespace;
    })
    .map((process) => ({
      name: 'other-user',
      severity: 'error',
      subject: nameProcess(process),
      message:
        'runs as another user than root, and CRIU cannot read its limits: this host’s root has no CAP_SYS_RESOURCE',
      remedy: 'give containerd that capability (the host is a container itself?), or run the process as root',
    }));
};

/** Real, effective and saved id. */
function idsOf(status: string, name: 'Uid' | 'Gid'): string[] {
  return new RegExp(`^${name}:\\s*(\\d+)\\s+(\\d+)\\s+(\\d+)`, 'm').exec(status)?.slice(1) ?? [];
}

/** What has no ids any more has ended. */
function ofOne(ids: readonly string[], id: string | undefined): boolean {
  return ids.every((other) => other === id);
}
