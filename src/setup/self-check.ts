import { cp, mkdir, mkdtemp, realpath, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { defaultSpec } from '../cli/default-spec.ts';
import type { GrpcCallOptions } from '../api/grpc-client.ts';
import type { Session } from '../cli/session.ts';
import { Containerd } from '../containerd/client.ts';
import { findProgram } from '../criu/find.ts';
import { codeOf, Code, FailedPrecondition } from '../errors.ts';
import { ExecSessions } from '../proto/gen/stasis/stasis.ts';
import { ANSWER_TIMEOUT_MS, type Exec } from '../sys/command.ts';
import type { Tell } from './apply.ts';

/** A namespace of its own, so that nobody sees the container, and so that what is left of it is known. */
export const CHECK_NAMESPACE = 'stasis-setup-check';
const CONTAINER = 'check';
const CHECKPOINT = 'check';

/**
 * Runs a throw-away container through containerd, checkpoints it, and takes all of it away again.
 * @returns what the checkpoint holds, in words
 */
export async function selfCheck(
  session: Session,
  exec: Exec,
  containerdAddress: string,
  tell: Tell,
): Promise<string> {
  const bundle = await mkdtemp(join(tmpdir(), 'stasis-check-'));
  try {
    await makeBundle(exec, bundle);
    tell('run a throw-away container');
    const request = { namespace: CHECK_NAMESPACE, id: CONTAINER, bundle };
    const run = (options: GrpcCallOptions) => session.stasis.run(request, options);
    await session.follow('run', CONTAINER, run, () => undefined);
    tell('checkpoint it');
    let memory = false;
    const asked = {
      namespace: CHECK_NAMESPACE,
      container: CONTAINER,
      name: CHECKPOINT,
      exit: false,
      diskOnly: false,
      requireMemory: false,
      noWait: false,
      execSessions: ExecSessions.EXEC_SESSIONS_DEFAULT,
      precopy: undefined,
    };
    const take = (options: GrpcCallOptions) => session.stasis.checkpoint(asked, options);
    await session.follow('checkpoint', CONTAINER, take, (update) => {
      if (update.$case === 'checkpoint') memory = update.value.memoryBytes > 0n;
    });
    return memory ? 'memory and disk' : 'the disk alone';
  } finally {
    await rm(bundle, { recursive: true, force: true });
    await cleanUp(session, containerdAddress);
  }
}

/** A root file system that holds `sleep` of this host, and what it is linked with. */
async function makeBundle(exec: Exec, bundle: string): Promise<void> {
  const sleep = await findProgram('sleep');
  const { stdout, exitCode, stderr } = await exec('ldd', [sleep], { timeoutMs: ANSWER_TIMEOUT_MS });
  if (exitCode !== 0 && !/not a dynamic executable/.test(stderr)) {
    throw new FailedPrecondition(`cannot make a container for the check: ldd ${sleep}: ${stderr.trim()}`, {
      subject: sleep,
      reason: 'no-check-container',
      remedy: 'run and checkpoint a container of your own',
    });
  }
  const libraries = [...stdout.matchAll(/(?:=> |^\s*)(\/\S+)/gm)].map((match) => match[1] ?? '');
  for (const file of [sleep, ...libraries]) {
    const target = join(bundle, 'rootfs', file === sleep ? '/bin/sleep' : file);
    await mkdir(dirname(target), { recursive: true });
    await cp(await realpath(file), target);
  }
  for (const folder of ['proc', 'dev', 'sys', 'tmp'])
    await mkdir(join(bundle, 'rootfs', folder), { recursive: true });
  await writeFile(join(bundle, 'config.json'), JSON.stringify(defaultSpec(['/bin/sleep', '600'])));
}

async function cleanUp(session: Session, address: string): Promise<void> {
  const quietly = async (work: Promise<unknown>): Promise<void> => {
    await work.catch((error: unknown) => {
      // What was never reached has left nothing; the check has said so.
      if (codeOf(error) !== Code.NotFound && codeOf(error) !== Code.Unavailable)
        session.warn(`left of the check: ${String(error)}`);
    });
  };
  await quietly(
    session.stasis.remove(
      { namespace: CHECK_NAMESPACE, container: CONTAINER, checkpoints: [CHECKPOINT] },
      { timeoutMs: 60_000 },
    ),
  );
  const containerd = new Containerd(address);
  try {
    const { tasks, containers, snapshots } = containerd.namespace(CHECK_NAMESPACE);
    const id = { containerId: CONTAINER };
    const exited = tasks.wait({ ...id, execId: '' }, { timeoutMs: 20_000 }).catch(() => undefined);
    await tasks
      .kill({ ...id, execId: '', signal: 9, all: true }, { timeoutMs: 20_000 })
      .catch(() => undefined);
    await exited;
    await quietly(tasks.delete(id, { timeoutMs: 20_000 }));
    await quietly(containers.delete({ id: CONTAINER }, { timeoutMs: 20_000 }));
    await quietly(snapshots.remove({ snapshotter: 'stasis', key: CONTAINER }, { timeoutMs: 60_000 }));
    await quietly(containerd.removeNamespace(CHECK_NAMESPACE));
  } finally {
    containerd.close();
  }
}
