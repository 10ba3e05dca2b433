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

/**
 * Begins with it for a runtime that is about to be started, since some of them come there before a grace period is over. Ends by itself
 * soon afterwards, if none comes.
 */
export function expectQuickMoves(): void {
  expected = performance.now() + EXPECTED_MS;
  void keepQuick();
}

/** Until when a call is expected. */
let expected = 0;

/** Milliseconds that it may take from there to the start of the runtime. */
const EXPECTED_MS = 25;

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
    while (isWanted() && own.membership === readMembership()) {
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

function isWanted(): boolean {
  const now = performance.now();
  return now < expected || (users > 0 && now < end);
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
  if (membership !== lately?.membership)
    lately = { membership, file: join(ownFolder() ?? '', 'cgroup.procs') };
  try {
    return { membership, procs: openSync(lately.file, 'r+') };
  } catch (error) {
    lately = undefined; // its hierarchy may be mounted elsewhere by now
    throw error;
  }
}

/** Where the file was found when it was looked for last: the table of mounts is long. */
let lately: { readonly membership: string; readonly file: string } | undefined;

function readMembership(): string {
  return readFileSync('/proc/self/cgroup', 'utf8');
}

const writeTo = promisify(write);
