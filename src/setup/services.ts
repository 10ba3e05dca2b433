import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { snapshotterName } from '../checkpoint/host.ts';
import { Containerd } from '../containerd/client.ts';
import { FailedPrecondition, messageOf, Unavailable } from '../errors.ts';
import { ANSWER_TIMEOUT_MS, type Exec } from '../sys/command.ts';
import type { Surroundings } from './facts.ts';

/** How long systemd may take to start or stop something. */
export const START_TIMEOUT_MS = 120_000;
/** How long containerd may take to answer after its restart. */
const RETURN_TIMEOUT_MS = 60_000;
const RETURN_POLL_MS = 250;

/**
 * Restarts containerd and waits until it answers and has our plugin.
 * @throws Unavailable where it does not come back, FailedPrecondition where it comes without the plugin
 */
export async function restartContainerd({
  exec,
  config,
  withoutPlugin = false,
}: Surroundings & { withoutPlugin?: boolean }): Promise<void> {
  await systemctl(exec, ['restart', 'containerd.service'], 'see: journalctl -u containerd');
  const containerd = new Containerd(config.containerd.address);
  try {
    const deadline = Date.now() + RETURN_TIMEOUT_MS;
    for (;;) {
      const plugins = await containerd
        .plugins([`type==io.containerd.snapshotter.v1,id==${snapshotterName}`])
        .catch((error: unknown) => messageOf(error));
      if (typeof plugins !== 'string') {
        if (withoutPlugin) return;
        const [plugin] = plugins;
        if (plugin !== undefined && plugin.initErr === undefined) return;
        throw new FailedPrecondition(
          `containerd is back without the snapshotter ${snapshotterName}: ${plugin?.initErr?.message ?? 'it did not read its entry'}`,
          { subject: 'containerd', reason: 'plugin-missing', remedy: 'see: journalctl -u containerd' },
        );
      }
      if (Date.now() > deadline) {
        throw new Unavailable(`containerd does not answer after its restart: ${plugins}`, {
          subject: config.containerd.address,
          reason: 'containerd-gone',
          remedy: 'see: journalctl -u containerd',
        });
      }
      await sleep(RETURN_POLL_MS);
    }
  } finally {
    containerd.close();
  }
}

/** @throws FailedPrecondition with what it said */
export async function systemctl(exec: Exec, args: readonly string[], remedy: string): Promise<void> {
  const { exitCode, stderr, spawnError, timedOut } = await exec('systemctl', args, {
    timeoutMs: START_TIMEOUT_MS,
  });
  if (exitCode === 0) return;
  const ended = timedOut
    ? `it did not end within ${START_TIMEOUT_MS / 1000} s`
    : `it ended with ${exitCode ?? 'a signal'}`;
  const why = spawnError ?? (stderr.trim().split('\n')[0] || ended);
  throw new FailedPrecondition(`systemctl ${args.join(' ')}: ${why}`, {
    subject: args.at(-1),
    reason: 'service-failed',
    remedy,
  });
}

/** Whether a process accepts connections at a socket. */
export function listens(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const answer = (is: boolean) => (): void => {
      socket.destroy();
      resolve(is);
    };
    socket.once('connect', answer(true)).once('error', answer(false));
  });
}

/** Whether a question to systemctl is answered with yes. */
export async function succeeds(exec: Exec, args: readonly string[]): Promise<boolean> {
  return (await exec('systemctl', args, { timeoutMs: ANSWER_TIMEOUT_MS })).exitCode === 0;
}
