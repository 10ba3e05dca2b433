import { eachDescriptor } from '../container-view.ts';
import type { Check } from '../obstacle.ts';

/** What CRIU knows of the kernel's nameless objects (criu/files.c), and io_uring, which has a check of its own. */
const known =
  /^anon_inode:(?:\[(?:eventfd|eventpoll|signalfd|timerfd|fanotify|pidfd|io_uring)\]|inotify|bpf-map)$/;

const remedies: readonly (readonly [RegExp, string])[] = [
  [
    /userfaultfd/,
    'end what moves memory by hand in it (a garbage collector in such a mode, a virtual machine)',
  ],
  [/perf_event/, 'stop the profiler'],
  [/kvm/, 'a virtual machine can be saved by its own program alone'],
  [/seccomp/, 'run the supervisor of its system calls outside the container'],
];

/** Nameless objects that CRIU has no image for: userfaultfd, perf events, virtual machines, BPF programs, … */
export const kernelObject: Check = (view) =>
  [...eachDescriptor(view)]
    .filter(({ descriptor: { target } }) => target.startsWith('anon_inode:') && !known.test(target))
    .map(({ subject, descriptor: { target } }) => ({
      name: 'kernel-object',
      severity: 'error',
      subject,
      message: `${target.slice('anon_inode:'.length).replace(/[[\]]/g, '')}, which CRIU cannot dump`,
      remedy:
        remedies.find(([kind]) => kind.test(target))?.[1] ?? 'close it, or take checkpoints with --disk-only',
    }));
