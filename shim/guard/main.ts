// The guard: what `start` becomes (execve) where the configuration asks for one. Standard output gets the address once the worker
// serves; then it lets go of its caller and stays until the worker leaves. With `check` it says what it is, for the guard that it is to
// follow, and with `resume` it follows that one, in the same process.
import { openSync, writeFileSync, writeSync } from 'node:fs';
import { closeOverExec, closeQuietly, replaceDescriptor } from '../../src/sys/descriptor.ts';
import { refuseCoreFile } from '../../src/sys/core-file.ts';
import { keepNewSpaceSmall } from '../../src/sys/heap.ts';
import { becomeSubreaper, refuseDebugger } from '../../src/sys/process.ts';
import { outlastSignals } from '../../src/sys/signals.ts';
import { programVersion } from '../../src/version.ts';
import { Guard, type GuardOptions } from './guard.ts';
import { PROTOCOL } from './messages.ts';
import { STATE_FORMAT, takeState } from './successor.ts';

/** The one argument, as JSON. */
export interface GuardStart extends GuardOptions {
  /** File for the address: containerd 1.6 and 1.7 find the shim again through it. */
  readonly addressFile: string;
}

async function start(argument: string): Promise<Guard> {
  const { addressFile, ...options } = JSON.parse(argument) as GuardStart;
  becomeSubreaper();
  closeOverExec(options.lock); // it was kept for us alone
  const guard = new Guard(options);
  await guard.serve();
  const address = `unix://${options.socket}`;
  writeFileSync(addressFile, address);
  writeSync(1, address);
  process.chdir('/');
  const nowhere = openSync('/dev/null', 'r+');
  for (const fd of [0, 1, 2]) replaceDescriptor(fd, nowhere);
  closeQuietly(nowhere);
  return guard;
}

function resume(fd: number): Guard {
  const left = takeState(fd);
  const guard = new Guard(left.options, left);
  guard.goOn(left);
  return guard;
}

function check(format: number): void {
  if (format !== STATE_FORMAT)
    throw new Error(
      `a guard with ${STATE_FORMAT} as its format of state cannot go on with one of format ${format}`,
    );
  process.stdout.write(JSON.stringify({ version: programVersion, protocol: PROTOCOL }));
}

refuseDebugger();
refuseCoreFile();
outlastSignals();
keepNewSpaceSmall();
try {
  const [first = '', second = ''] = process.argv.slice(2);
  if (first === 'check') {
    check(Number(second));
  } else {
    const guard = first === 'resume' ? resume(Number(second)) : await start(first);
    await guard.left;
    process.exit(0);
  }
} catch (error) {
  process.stderr.write(
    `containerd-shim-stasis-v2: ${error instanceof Error ? error.message : String(error)}\n`,
  );
  process.exit(1);
}
