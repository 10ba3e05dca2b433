// Quick moves of processes between cgroups, for as long as an OCI runtime needs them.
import { closeSync, openSync, readFileSync, write } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ownFolder } from './cgroup.ts';

/**
 * The kernel moves processes between cgroups under one lock for the whole host, which is made so that forks are cheap and
 * moves are dear: the first waits for an RCU grace period, 5 to 15 ms, and those within as long after it do not
 * (kernel/cgroup/cgroup.c, cgroup_threadgroup_rwsem; kernel/rcu/sync.c). A runtime's create, exec and restore come there
 * 10 to 30 ms after they were started, so the waiting is done for them meanwhile: we move ourselves to where we are, again and
 * again until `work` is done. That changes nothing; where it is not allowed, `work` takes its usual time.
 */
export async function withQuickMoves<T>(work: () => Promise<T>): Promise<T> {
  users++;
  end = performance.now() + SERIES_MS;
  void keepQuick();
  try {
    return await work();
  } finally {
    users--;
  }
}

/** Calls that are being helped now. */
let users = 0;

/** Milliseconds between two moves: well within a grace period. */
const INTERVAL_MS = 4;

/** Milliseconds for which one call is helped: a runtime has moved its process by then, whatever else it waits for. */
const SERIES_MS = 400;

/** When the youngest call is helped no more. */
let end = 0;

let busy = false;

async function keepQuick(): Promise<void> {
  if (busy) return;
  busy = true;
  let own: OwnCgroup | undefined;
  try {
    own = openOwn();
    while (users > 0 && performance.now() < end && own.membership === readMembership()) {
      await writeTo(own.procs, String(process.pid));
      await new Promise((resolve) => setTimeout(resolve, INTERVAL_MS));
    }
  } catch {
    // Not root, no cgroup mounted, a cgroup of v2 that takes no processes: then it goes slower, as without us.
  } finally {
    if (own !== undefined) closeSync(own.procs);
    busy = false;
  }
}

/** Where we are, open for a whole series: to look it up costs several times what the move does. */
interface OwnCgroup {
  /** As long as this is so. */
  readonly membership: string;
  /** Its file cgroup.procs. */
  readonly procs: number;
}

function openOwn(): OwnCgroup {
  const membership = readMembership();
  const folder = ownFolder() ?? '';
  return { membership, procs: openSync(join(folder, 'cgroup.procs'), 'w') };
}

function readMembership(): string {
  return readFileSync('/proc/self/cgroup', 'utf8');
}

const writeTo = promisify(write);
