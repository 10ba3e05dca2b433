import { eachDescriptor } from '../container-view.ts';
import type { Check } from '../obstacle.ts';

/** Requests of an io_uring are under way in the kernel, where CRIU cannot see them: https://criu.org/What_cannot_be_checkpointed */
export const ioUring: Check = (view) =>
  [...eachDescriptor(view)]
    .filter(({ descriptor }) => descriptor.target === 'anon_inode:[io_uring]')
    .map(({ subject }) => ({
      name: 'io-uring',
      severity: 'error',
      subject,
      message: 'an io_uring, which CRIU cannot dump',
      remedy:
        'start the container with the annotation stasis.io/checkpointable=true, so that its programs do without; Node.js also with UV_USE_IO_URING=0',
    }));
