import { openSync, writeSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import type { Config } from '../../src/config/config.ts';
import { closeQuietly, replaceDescriptor } from '../../src/sys/descriptor.ts';
import { becomeSubreaper, leaveSession } from '../../src/sys/process.ts';
import type { ShimArguments } from '../arguments.ts';
import { Paths } from '../paths.ts';
import { readBootstrap } from './bootstrap.ts';
import { readStdin } from './stdin.ts';
import { claimPlace, type Place } from './claim.ts';
import { groupOf } from './group.ts';
import { Shim } from './shim.ts';

/**
 * Becomes a shim and serves until there is nothing to do, or says which shim serves already. Standard output gets the
 * address and nothing else, once somebody listens there.
 */
export async function serve(args: ShimArguments, config: Config, env: NodeJS.ProcessEnv): Promise<void> {
  const paths = new Paths(config.daemon.run_dir);
  const group = await groupOf(config, args);
  const place: Place = {
    socket: paths.socket(args.address, args.namespace, group),
    lock: paths.lock(args.address, args.namespace, group),
  };
  const bootstrap = readBootstrap(await readStdin(), args.id, args.namespace);
  const lock = await claimPlace(place);
  if (lock === undefined) {
    await answer(args, place);
    return;
  }
  leaveSession();
  becomeSubreaper();
  const shim = await Shim.listen({
    args,
    config,
    ttrpcAddress: env['TTRPC_ADDRESS'] ?? bootstrap?.ttrpcAddress ?? '',
    paths,
    socket: place.socket,
    shared: group === '',
  });
  await answer(args, place);
  detach();
  await shim.served;
  closeQuietly(lock);
}

/** containerd 1.6 and 1.7 find the shim again through the file; all read standard output to its end. */
async function answer(args: ShimArguments, place: Place): Promise<void> {
  const address = `unix://${place.socket}`;
  await writeFile(args.bundle === '' ? 'address' : `${args.bundle}/address`, address);
  writeSync(1, address);
}

/** Lets go of the caller: its streams, so that it reads their end, and its folder, so that it can be removed. */
function detach(): void {
  process.chdir('/');
  const nowhere = openSync('/dev/null', 'r+');
  for (const fd of [0, 1, 2]) replaceDescriptor(fd, nowhere);
  closeQuietly(nowhere);
}
