import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { DeadlineExceeded } from '../../../src/errors.ts';
import type { WallTime } from '../../../src/sys/clock.ts';
import { commandError } from '../../../src/zfs/errors.ts';
import type { Zfs, ZfsKind } from '../../../src/zfs/zfs.ts';
import { SnapshotStore, type StoreOptions } from '../../../snapshotter/store.ts';
import { FakeMounter, FakeZfs } from './fake-zfs.ts';

export const ROOT = 'tank/stasis';
export const OWNER = '11111111-2222-3333-4444-555555555555';

/** A clock that a test moves; each reading is one nanosecond later than the last. */
export class TestClock {
  seconds = 1_700_000_000;
  #nanos = 0;

  readonly now = (): WallTime => ({ seconds: BigInt(this.seconds), nanos: this.#nanos++ });
}

export interface Harness {
  readonly zfs: FakeZfs;
  readonly mounter: FakeMounter;
  readonly clock: TestClock;
  readonly store: SnapshotStore;
  /** A store with an empty index over the same pool: what a restart makes. */
  restart(options?: Partial<StoreOptions>): Promise<SnapshotStore>;
  /** Commands since the last call. */
  commands(): string[];
}

/** A loaded store over ZFS in memory; removed when the test ends. */
export async function harness(
  t: TestContext,
  options: Partial<StoreOptions> = {},
  kind: ZfsKind = 'openzfs',
): Promise<Harness> {
  const folder = await mkdtemp(join(tmpdir(), 'stasis-fake-zfs-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const zfs = new FakeZfs(folder, kind);
  const mounter = new FakeMounter(zfs);
  const clock = new TestClock();
  let seen: string[] = [];
  const recorded = recording(zfs, (command) => seen.push(command));
  const open = async (more: Partial<StoreOptions> = {}): Promise<SnapshotStore> => {
    const store = new SnapshotStore({
      zfs: recorded,
      mounter,
      root: ROOT,
      owner: OWNER,
      trashGrace: 100,
      now: clock.now,
      syncfs: async () => undefined,
      ...options,
      ...more,
    });
    await store.load();
    return store;
  };
  const store = await open();
  seen = [];
  return {
    zfs,
    mounter,
    clock,
    store,
    restart: open,
    commands: () => seen.splice(0),
  };
}

const commandNames = [
  'create',
  'clone',
  'snapshot',
  'destroy',
  'destroyIdempotent',
  'promote',
  'rename',
  'set',
  'inherit',
  'list',
  'mount',
  'poolStatus',
  'pools',
] as const;

/** The same ZFS, telling of each command before it runs. */
export function recording(zfs: Zfs, tell: (command: string, subject: string) => void): Zfs {
  return wrap(zfs, (name, subject, run) => {
    tell(name, subject);
    return run();
  });
}

/** The process died: nothing it does from then on has an effect. */
export class Killed extends Error {}

/** The same ZFS for a process that dies before or after its nth command (from 0). */
export function dying(zfs: Zfs, nth: number, when: 'before' | 'after'): Zfs {
  let count = 0;
  return wrap(zfs, async (_name, _subject, run) => {
    const at = count++;
    if (at > nth || (at === nth && when === 'before')) throw new Killed('killed');
    const result = await run();
    if (at === nth) throw new Killed('killed');
    return result;
  });
}

/**
 * The same ZFS on a pool whose device fails at the nth command (from 0): that one and what follows give no answer, and
 * have their effect when the device is back, in their order.
 */
export function stalling(zfs: Zfs, nth: number): { zfs: Zfs; mend: () => Promise<void> } {
  let count = 0;
  let stalled = false;
  let mended = false;
  const waiting: (() => Promise<unknown>)[] = [];
  const wrapped = wrap(zfs, async (name, subject, run) => {
    stalled ||= count++ === nth && !mended;
    if (!stalled || name === 'list') return run();
    waiting.push(run);
    throw new DeadlineExceeded(`cannot ${name} ${subject}: no answer from ZFS`);
  });
  return {
    zfs: wrapped,
    mend: async () => {
      stalled = false;
      mended = true;
      for (const run of waiting.splice(0)) await run().catch(() => undefined);
    },
  };
}

/**
 * The same ZFS, where each command that changes something is refused as the real one does it.
 * @param line what it prints, with `%` for the dataset
 */
export function refusing(zfs: Zfs, line: string): Zfs {
  return wrap(zfs, async (name, subject, run) => {
    if (name === 'list' || name === 'poolStatus') return run();
    throw commandError(`${name} ${subject}`, subject, {
      exitCode: 1,
      signal: undefined,
      stdout: '',
      stderr: `${line.replace('%', subject)}\n`,
      timedOut: false,
      cancelled: false,
      durationMs: 1,
      spawnError: undefined,
    });
  });
}

function wrap(
  zfs: Zfs,
  around: (name: string, subject: string, run: () => Promise<unknown>) => Promise<unknown>,
): Zfs {
  const names = new Set<string>(commandNames);
  return new Proxy(zfs, {
    get(target, property) {
      const value = Reflect.get(target, property, target) as unknown;
      if (typeof property !== 'string' || !names.has(property) || typeof value !== 'function') return value;
      return (...args: unknown[]) =>
        around(property, String(args[0]), () => Reflect.apply(value, target, args) as Promise<unknown>);
    },
  });
}
