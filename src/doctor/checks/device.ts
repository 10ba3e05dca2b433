import { eachDescriptor, mountOf } from '../container-view.ts';
import type { Check } from '../obstacle.ts';

const MEM = 1; // null, zero, full, random, urandom, kmsg
const TERMINALS = new Set([2, 3, 4, 5, 136, 137, 138, 139, 140, 141, 142, 143]);
const MISC = 10;
const TUN = 200;

/** Devices that CRIU opens again at a restore: criu/files.c. Numbers: the kernel's admin-guide/devices.txt */
function isKnown(major: number, minor: number): boolean {
  return major === MEM || TERMINALS.has(major) || (major === MISC && minor === TUN);
}

/** CRIU has plugins for graphics processors, which may or may not do. */
const plugin = /^\/dev\/(?:nvidia|kfd|dri\/)/;

/** Open devices whose state the kernel keeps to itself. */
export const device: Check = (view) => {
  const found = [];
  for (const { descriptor, subject } of eachDescriptor(view)) {
    // The root file system is left alone: a stat there may wait for a pool, and containers have no devices in it.
    if (!/^(?:devtmpfs|tmpfs|devpts)$/.test(mountOf(view, descriptor.target)?.type ?? '')) continue;
    const facts = view.proc.stat(descriptor.path);
    if (facts?.kind !== 'character-device' && facts?.kind !== 'block-device') continue;
    if (facts.kind === 'character-device' && isKnown(facts.major, facts.minor)) continue;
    const helped = plugin.test(descriptor.target);
    found.push({
      name: 'device',
      severity: helped ? ('warning' as const) : ('error' as const),
      subject,
      message: helped
        ? `the device ${descriptor.target}, which CRIU can dump with a plugin alone`
        : `the device ${descriptor.target}, whose state CRIU cannot dump`,
      remedy: helped
        ? "install CRIU's plugin for it"
        : 'close the device before a checkpoint, or take it with --disk-only',
    });
  }
  return found;
};
