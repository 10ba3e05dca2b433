// The guard: what `start` becomes (execve) where the configuration asks for one. Standard output gets the address once the worker
// serves; then it lets go of its caller and stays until the worker leaves.
import { openSync, writeFileSync, writeSync } from 'node:fs';
import { closeQuietly, replaceDescriptor } from '../../src/sys/descriptor.ts';
import { becomeSubreaper } from '../../src/sys/process.ts';
import { Guard, type GuardOptions } from './guard.ts';

/** The one argument, as JSON. */
export interface GuardStart extends GuardOptions {
  /** File for the address: containerd 1.6 and 1.7 find the shim again through it. */
  readonly addressFile: string;
}

try {
  const { addressFile, ...options } = JSON.parse(process.argv[2] ?? '') as GuardStart;
  becomeSubreaper();
  const guard = new Guard(options);
  await guard.serve();
  const address = `unix://${options.socket}`;
  writeFileSync(addressFile, address);
  writeSync(1, address);
  process.chdir('/');
  const nowhere = openSync('/dev/null', 'r+');
  for (const fd of [0, 1, 2]) replaceDescriptor(fd, nowhere);
  closeQuietly(nowhere);
  await guard.left;
  process.exit(0);
} catch (error) {
  process.stderr.write(
    `containerd-shim-stasis-v2: ${error instanceof Error ? error.message : String(error)}\n`,
  );
  process.exit(1);
}
