import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Config } from '../../src/config/config.ts';
import { codeOf, Code } from '../../src/errors.ts';
import { DeleteResponse, TaskDefinition } from '../../src/proto/gen/containerd/task.ts';
import { exec } from '../../src/sys/command.ts';
import { Client } from '../../ttrpc/index.ts';
import type { ShimArguments } from '../arguments.ts';
import { readRecord } from '../container/record.ts';
import { removeMountPoints, unmountBelow, unmountRootfs } from '../container/rootfs.ts';
import { Paths } from '../paths.ts';
import { criuFolder } from '../process/restore.ts';
import { asPrintfArgument } from './answer.ts';
import { clearTask } from './clear.ts';
import { clearDead, finish, isOrphan, lastAnswer, withLastExit } from './dead.ts';

const SIGKILL = 9;
const RPC_TIMEOUT_MS = 3000;

/**
 * The action `delete`: containerd lost the connection to the task's shim, and wants nothing to be left of the task. Safe
 * to repeat. Prints a DeleteResponse.
 *
 * With STASIS_CLEARING the launcher waits for the answer in the task's folder, and this process, which holds the namespace's
 * clear lock on a descriptor that it inherited, clears away all that the dead shim had.
 */
export async function runDelete(args: ShimArguments, config: Config, env: NodeJS.ProcessEnv): Promise<void> {
  const paths = new Paths(config.daemon.run_dir);
  const folder = paths.task(args.namespace, args.id);
  const forAll = env['STASIS_CLEARING'] !== undefined;
  if (forAll) await clearDead(paths, args.namespace, exec);
  const left = await readRecord(folder);
  const record = left === undefined ? undefined : withLastExit(paths, left);
  if (forAll && (record === undefined || isOrphan(record))) return; // it is done, or could not be
  const answered = await byShim(folder, args.id);
  if (answered === undefined && record !== undefined) {
    await clearTask(record, exec, (text) => process.stderr.write(`${text}\n`));
  }
  const response = answered ?? lastAnswer(record);
  if (forAll) {
    finish(folder, asPrintfArgument(response));
    return;
  }
  if (args.bundle !== '') {
    await unmountRootfs(join(args.bundle, 'rootfs'));
    await unmountBelow(criuFolder(args.bundle));
    await removeMountPoints(join(args.bundle, 'rootfs'), record?.rootfs ?? []);
  }
  await rm(folder, { recursive: true, force: true });
  process.stdout.write(DeleteResponse.encode(response).finish());
}

/** The shim is alive after all: it ends and deletes the task itself, so that its own books stay right. */
async function byShim(folder: string, id: string): Promise<DeleteResponse | undefined> {
  const address = await readFile(join(folder, 'address'), 'utf8').catch(() => '');
  if (address === '') return undefined;
  const limits = { timeout: RPC_TIMEOUT_MS };
  try {
    const client = await Client.connect(address, { signal: AbortSignal.timeout(RPC_TIMEOUT_MS) });
    try {
      const tasks = client.service(TaskDefinition);
      const isBorn = await tasks.kill({ id, execId: '', signal: SIGKILL, all: true }, limits).then(
        () => true,
        (error: unknown) => {
          if (codeOf(error) === Code.FailedPrecondition) return false; // a restore that was not started
          if (codeOf(error) !== Code.NotFound) throw error;
          return true;
        },
      );
      if (isBorn) await tasks.wait({ id, execId: '' }, limits);
      return await tasks.delete({ id, execId: '' }, limits);
    } finally {
      client.close();
    }
  } catch {
    return undefined;
  }
}
