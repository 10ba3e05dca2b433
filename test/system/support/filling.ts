import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmdirSync,
  statfsSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { listFills, readNote, readState } from '../../../src/pages/fill-files.ts';
import { runDir } from '../shim/shims.ts';
import { datasets, stack, stasis, until } from './stack.ts';

export interface Filling {
  readonly checkpoint: string;
  readonly doneBytes: number;
  readonly totalBytes: number;
  readonly lost: string | null;
}

/** What users are told of memory that is still missing. */
export async function fillingOf(name: string): Promise<Filling | null> {
  const { container } = JSON.parse(await stasis('inspect', name, '--json')) as {
    container: { filling: Filling | null };
  };
  return container.filling;
}

/** The page server of a container; undefined where there is none yet, or none any more. */
export function pageServer(name: string): number | undefined {
  for (const folder of listFills(runDir)) {
    if (readNote(folder)?.container !== name) continue;
    const state = readState(folder);
    if (state?.kind === 'filling') return state.pid;
  }
  return undefined;
}

/**
 * Restores with `restore` (which makes container `name`), and slows its page server down as soon as that has the tasks' memory
 * to serve, so that most of it is missing for half a minute. It cannot be stopped altogether: a task that returns to user mode
 * has its restartable sequences written, rseq(2), for which CRIU waits; and CRIU's server does not survive a SIGSTOP. Answers
 * the server.
 */
export async function restoreHeld(name: string, restore: () => Promise<unknown>): Promise<number> {
  const restored = restore();
  restored.catch(() => undefined);
  const server = await until('a page server that serves', async () => {
    for (let n = 0; n < 20; n++) {
      const pid = pageServer(name);
      if (pid !== undefined && userfaults([pid]).length > 0) return pid;
      await sleep(1);
    }
    return undefined;
  });
  slow(server, 1);
  await restored;
  return server;
}

const groups = statfsSync('/sys/fs/cgroup').type === 0x63677270 ? '/sys/fs/cgroup' : '/sys/fs/cgroup/cpu';
const PERIOD_US = 500_000;

/** Gives a process so many thousandths of a processor. */
export function slow(pid: number, thousandths: number): void {
  const folder = join(groups, `stasis-test-${process.pid}`);
  mkdirSync(folder, { recursive: true });
  const quota = Math.max(1000, (PERIOD_US * thousandths) / 1000);
  if (groups.endsWith('cpu')) {
    writeFileSync(join(folder, 'cpu.cfs_period_us'), String(PERIOD_US));
    writeFileSync(join(folder, 'cpu.cfs_quota_us'), String(quota));
  } else {
    writeFileSync(join(folder, 'cpu.max'), `${quota} ${PERIOD_US}`);
  }
  writeFileSync(join(folder, 'cgroup.procs'), String(pid));
}

/** Lets all that were slowed run as others do. */
export function goOn(): void {
  const folder = join(groups, `stasis-test-${process.pid}`);
  for (const pid of readFileSync(join(folder, 'cgroup.procs'), 'latin1').split('\n')) {
    if (pid !== '') writeFileSync(join(groups, 'cgroup.procs'), pid);
  }
}

/** Takes the slow ones' cgroup away. */
export async function removeSlow(): Promise<void> {
  const folder = join(groups, `stasis-test-${process.pid}`);
  if (!existsSync(folder)) return;
  goOn();
  await until('the slow to be gone', () => {
    try {
      rmdirSync(folder);
      return true;
    } catch {
      return undefined;
    }
  });
}

/** Waits until all memory of a container is there. */
export async function filled(name: string): Promise<void> {
  await until(`the memory of ${name}`, async () => ((await fillingOf(name)) === null ? true : undefined));
}

/** Processes, of all or of those named, that have a userfaultfd open. */
export function userfaults(pids: readonly number[] = allPids()): number[] {
  return pids.filter((pid) => {
    try {
      const names = readdirSync(`/proc/${pid}/fd`);
      return names.some((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`) === 'anon_inode:[userfaultfd]');
    } catch {
      return false; // it has ended
    }
  });
}

function allPids(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

/** Page servers of this stack. */
export function pageServers(): number[] {
  return allPids().filter((pid) => {
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, 'latin1');
      return command.includes('lazy-pages') && command.includes(`${runDir}/`);
    } catch {
      return false;
    }
  });
}

/** What is left of restores whose memory came in by and by: nothing, a moment after the last of them. */
export async function nothingLeft(): Promise<void> {
  await until('page servers, clones and folders to go', () => {
    const clones = datasets().filter((dataset) => dataset.startsWith(`${stack.root}/reading/`));
    const left = pageServers().length + clones.length + listFills(runDir).length + ourUserfaults();
    return left === 0 ? true : undefined;
  });
}

/** Of shims and page servers of this stack. */
function ourUserfaults(): number {
  return userfaults().filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/environ`, 'latin1').includes(stack.config);
    } catch {
      return false;
    }
  }).length;
}

/**
 * Lines for startPython: `area` is memory of which each page tells its number and how often it was written, and a thread
 * writes to it all the time, each page that it comes to being looked at first. `check_all` looks at every page.
 */
export function watchedMemory(megabytes: number): string {
  return `
import array, mmap, random, struct
PAGE = 4096
PAGES = ${megabytes} * 256
area = mmap.mmap(-1, PAGES * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
versions = array.array('Q', bytes(8 * PAGES))
for page in range(PAGES): struct.pack_into('<QQ', area, page * PAGE, page + 1, 0)
def look(page):
    found = struct.unpack_from('<QQ', area, page * PAGE)
    if found != (page + 1, versions[page]):
        said('/torn', f'page {page}: {found}, not {(page + 1, versions[page])}')
        raise AssertionError(f'page {page}')
def check_all():
    for page in range(PAGES): look(page)
    assert not os.path.exists('/torn')
def write():
    dice = random.Random(1)
    count = os.open('/count', os.O_CREAT | os.O_WRONLY)
    for n in range(1 << 60):
        page = dice.randrange(PAGES)
        look(page)
        struct.pack_into('<Q', area, page * PAGE + 8, versions[page] + 1)
        versions[page] += 1
        if n % 50 == 0:
            os.pwrite(count, f'{n:12}'.encode(), 0)
            time.sleep(0.001)
writer = threading.Thread(target=write, daemon=True)
writer.start()`;
}
