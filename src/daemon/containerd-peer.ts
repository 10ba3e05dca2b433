import { readFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { basename } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { peerCredentials } from '../sys/peer.ts';

/** containerd dials its plugins before it listens itself; how long its start may take, and how often we look. */
const START_TIMEOUT_MS = 60_000;
const START_POLL_MS = 50;
const LOADER_WORDS = 6;

/**
 * Whether a process is the containerd at the configured address: the one that listens there, by the credentials
 * that the kernel gives for its end of a connection. Asked anew when an unknown process comes, since containerd
 * may have been restarted.
 */
export class ContainerdPeer {
  readonly #address: string;
  readonly #onNew: () => void;
  #pid: number | undefined;

  /** @param onNew called when another process than before listens there, before it is answered anything */
  constructor(address: string, onNew: () => void) {
    this.#address = address;
    this.#onNew = onNew;
  }

  /** For a containerd that is just starting, the answer comes when it listens. */
  async is(pid: number): Promise<boolean> {
    if (pid === this.#pid && (await isContainerd(pid))) return true;
    const deadline = Date.now() + START_TIMEOUT_MS;
    for (;;) {
      const listener = await listenerPid(this.#address);
      if (listener !== undefined && listener !== this.#pid) {
        this.#pid = listener;
        this.#onNew();
      }
      if (listener === pid) return true;
      if (listener !== undefined || Date.now() > deadline || !(await isContainerd(pid))) return false;
      await sleep(START_POLL_MS);
    }
  }
}

/** By its command line, whose first words may be a dynamic loader and its options. */
async function isContainerd(pid: number): Promise<boolean> {
  const line = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
  return line
    .split('\0')
    .slice(0, LOADER_WORDS)
    .some((word) => basename(word) === 'containerd');
}

/** The process that listens on a unix socket, or undefined where nobody does. */
function listenerPid(path: string): Promise<number | undefined> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      const peer = peerCredentials(socket);
      socket.destroy();
      resolve(peer?.pid);
    });
    socket.once('error', () => resolve(undefined));
  });
}
