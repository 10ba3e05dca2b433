import { openSync, rmSync, writeSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Config } from '../../src/config/config.ts';
import { Unimplemented } from '../../src/errors.ts';
import { closeQuietly, keepOverExec, replaceDescriptor } from '../../src/sys/descriptor.ts';
import { joinCgroup } from '../../src/sys/cgroup.ts';
import {
  becomeSubreaper,
  createCoreSchedulingCookie,
  leaveSession,
  yieldToParent,
} from '../../src/sys/process.ts';
import { outlastSignals } from '../../src/sys/signals.ts';
import { poolMade, widenPool } from '../../src/sys/thread-pool.ts';
import { Any } from '../../src/proto/gen/google/protobuf/any.ts';
import type { ShimArguments } from '../arguments.ts';
import { isOptions, readOptions } from '../../src/containerd/task-options.ts';
import type { GuardStart } from '../guard/main.ts';
import { guardCommand } from '../guard/successor.ts';
import { Paths } from '../paths.ts';
import { readBootstrap } from './bootstrap.ts';
import { readStdin } from './stdin.ts';
import { claimPlace, type Place } from './claim.ts';
import { groupOf, isSet } from './group.ts';
import { Shim, type ShimStart } from './shim.ts';

const SLOG_DEBUG = -4;

/**
 * Becomes a shim and serves until there is nothing to do, or says which shim serves already. Standard output gets the
 * address and nothing else, once somebody listens there.
 */
export async function serve(args: ShimArguments, config: Config, env: NodeJS.ProcessEnv): Promise<void> {
  widenPool(env);
  const paths = new Paths(config.daemon.run_dir);
  const group = await groupOf(config, args, env);
  const shared = group === '';
  const place: Place = {
    socket: paths.socket(args.address, args.namespace, group),
    lock: paths.lock(args.address, args.namespace, group),
    ...(shared ? { announcement: paths.resident(args.address, args.namespace) } : {}),
  };
  const stdin = await readStdin();
  const bootstrap = readBootstrap(stdin, args.id, args.namespace);
  const lock = await claimPlace(place);
  if (lock === undefined) {
    await answer(args, place);
    return;
  }
  const openFiles = Number(env['STASIS_OPEN_FILES'] ?? NaN);
  // What the launcher and we ourselves have added: runtimes and hooks get containerd's environment.
  delete env['STASIS_OPEN_FILES'];
  poolMade(env);
  const guarded = config.shim.guard === 'on';
  await settleDown(bootstrap?.extensions ?? [Any.decode(stdin)], env, guarded);
  leaveSession();
  // The flag is announced to go away.
  const debug = args.debug || (bootstrap?.logLevel ?? 0) <= SLOG_DEBUG;
  const start: ShimStart = {
    args: { ...args, debug },
    ttrpcAddress: env['TTRPC_ADDRESS'] ?? bootstrap?.ttrpcAddress ?? '',
    openFiles: Number.isSafeInteger(openFiles) ? openFiles : undefined,
    shared,
    socket: place.socket,
  };
  if (guarded) becomeGuard(start, paths, lock);
  outlastSignals();
  becomeSubreaper();
  const shim = await Shim.listen({ ...start, config, paths });
  await answer(args, place);
  detach();
  await shim.served;
  closeQuietly(lock);
}

/**
 * What containerd wants of the process that becomes a shim, as its own `start` does it: a cgroup that the runtime's options
 * name, a core scheduling cookie, and an earlier end than containerd's own when memory is short.
 * @throws NotFound for a cgroup that does not exist; SysError where the kernel has no core scheduling
 */
async function settleDown(
  extensions: readonly Any[],
  env: NodeJS.ProcessEnv,
  guarded: boolean,
): Promise<void> {
  for (const any of extensions.filter(isOptions)) {
    // What is malformed is refused by Create, with the right code.
    const options = await readOptions(any).catch(() => undefined);
    const cgroup = options?.shimCgroup ?? '';
    if (cgroup !== '') await joinCgroup(cgroup, process.pid);
  }
  if (isSet(env['SCHED_CORE'])) createCoreSchedulingCookie();
  if (!guarded) yieldToParent(); // else the worker does: it is to go first
}

/** Goes on as the guard's program, which starts the worker, listens, and answers the caller; or as nothing, where that fails. */
function becomeGuard(start: ShimStart, paths: Paths, lock: number): never {
  const { args, socket } = start;
  const guard: GuardStart = {
    program: [process.argv[1] ?? '', 'worker'],
    socket,
    control: paths.control(socket),
    workerSockets: paths.workerSockets(socket),
    start,
    exits: paths.exits,
    lock,
    addressFile: addressFile(args),
  };
  // What a killed one had to say, containerd's `delete` has said.
  rmSync(paths.events(socket), { force: true });
  keepOverExec(lock);
  const node = process.execPath;
  const command = guardCommand(join(import.meta.dirname, 'guard.mjs'), JSON.stringify(guard));
  process.execve?.(node, [node, ...command], process.env);
  throw new Unimplemented('this Node cannot become another program');
}

function addressFile({ bundle }: ShimArguments): string {
  return bundle === '' ? 'address' : `${bundle}/address`;
}

/** containerd 1.6 and 1.7 find the shim again through the file; all read standard output to its end. */
async function answer(args: ShimArguments, place: Place): Promise<void> {
  const address = `unix://${place.socket}`;
  await writeFile(addressFile(args), address);
  writeSync(1, address);
}

/** Lets go of the caller: its streams, so that it reads their end, and its folder, so that it can be removed. */
function detach(): void {
  process.chdir('/');
  const nowhere = openSync('/dev/null', 'r+');
  for (const fd of [0, 1, 2]) replaceDescriptor(fd, nowhere);
  closeQuietly(nowhere);
}
