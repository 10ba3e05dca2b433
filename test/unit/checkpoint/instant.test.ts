import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import type {
  Gates,
  InstantPlan,
  InstantTarget,
  InstantTools,
} from '../../../src/checkpoint/instant-plan.ts';
import { takeInstant } from '../../../src/checkpoint/instant.ts';
import {
  Aborted,
  AlreadyExists,
  Cancelled,
  DeadlineExceeded,
  FailedPrecondition,
} from '../../../src/errors.ts';
import { OciError } from '../../../src/oci/error.ts';

let folder: string;
let world: World;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'stasis-instant-'));
  world = new World();
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** A container, a pool and a CRIU that do as they are told, and a journal of what was done. */
class World implements InstantTools {
  readonly journal: string[] = [];
  frozen = false;
  alive = true;
  snapshots = new Set<string>();
  readonly parents: (string | undefined)[] = [];
  dump: (signal?: AbortSignal) => Promise<void> = async () => this.writeImage();
  beforeSnapshot: () => Promise<void> = async () => undefined;
  afterFreeze: () => void = () => undefined;

  readonly freezer = {
    freeze: async (): Promise<void> => {
      this.journal.push('freeze');
      this.frozen = true;
      this.afterFreeze();
    },
    thaw: async (): Promise<void> => {
      this.journal.push('thaw');
      this.frozen = false;
    },
    isFrozen: async (): Promise<boolean> => this.frozen,
  };
  readonly zfs = {
    snapshot: async ([name]: readonly string[]): Promise<void> => {
      this.journal.push('snapshot');
      assert.ok(this.frozen, 'a snapshot of a running container');
      await this.beforeSnapshot();
      if (this.snapshots.has(name ?? '')) throw new AlreadyExists(`${name} exists`);
      this.snapshots.add(name ?? '');
    },
    destroyIdempotent: async (name: string): Promise<void> => {
      this.journal.push('destroy');
      this.snapshots.delete(name);
    },
  };
  readonly syncfs = async (): Promise<void> => void this.journal.push('syncfs');
  readonly pids = async (): Promise<number[]> => (this.alive ? [42] : []);
  readonly isDying = (): boolean => !this.alive;
  readonly kill = async (): Promise<void> => {
    this.journal.push('kill');
    this.alive = false;
  };

  readonly target: InstantTarget = {
    id: 'web',
    pid: 42,
    cgroup: { version: 2, path: '/web', folders: new Map() },
    runtime: {
      checkpoint: async ({ onStart, signal, parentPath }) => {
        this.parents.push(parentPath);
        onStart?.();
        this.journal.push('dump');
        assert.ok(this.frozen, 'a dump of a running container');
        await this.dump(signal);
      },
      preDump: async () => assert.fail('that is before the instant'),
    },
  };

  writeImage(): void {
    for (const name of ['inventory', 'pstree', 'core-1', 'mm-1', 'pagemap-1'])
      writeFileSync(join(image(), `${name}.img`), 'x');
    writeFileSync(join(image(), 'descriptors.json'), '[]');
  }
}

const image = (): string => join(folder, 'image');

function plan(
  options: { required?: boolean; exit?: boolean; disk?: boolean; memory?: boolean } = {},
): InstantPlan {
  const { required = true, exit = false, disk = true, memory = true } = options;
  return {
    exit,
    timeoutMs: 1000,
    ...(memory ? { memory: { imageDir: image(), workDir: folder, criu: {}, required } } : {}),
    ...(disk ? { disk: { snapshot: 'tank/web@now', properties: {}, syncPath: folder } } : {}),
  };
}

const take = (wanted: InstantPlan, signal = new AbortController().signal) =>
  takeInstant(world.target, wanted, world, signal);

/** What every failure must leave. */
function assertUndone({ paused = false } = {}): void {
  assert.equal(world.frozen, paused);
  assert.deepEqual([...world.snapshots], []);
  assert.deepEqual(existsSync(image()) ? readdirSync(image()) : [], []);
}

const criuFails = (): Promise<void> => {
  writeFileSync(
    join(folder, 'dump.log'),
    "(00.1) Error (criu/x.c:1): Can't dump a unicorn\n(00.2) Error (criu/cr-dump.c:1): Dumping FAILED.\n",
  );
  throw new OciError('criu', 'checkpoint', { subject: 'web', said: 'criu failed: type NOTIFY errno 0' });
};

test('memory and disk are taken between freeze and thaw, what is dirty is written before', async () => {
  const result = await take(plan());
  assert.deepEqual(world.journal.slice(0, 2), ['syncfs', 'freeze']);
  assert.deepEqual(world.journal.slice(2, -1).sort(), ['dump', 'snapshot', 'syncfs']);
  assert.equal(world.journal.at(-1), 'thaw');
  assert.ok(result.memory && !result.wasPaused && !result.exited && result.imageBytes === 7);
  assert.ok(result.times.frozen > 0n);
});

test('where a GPU may let the container run, the disk waits for memory', async () => {
  await takeInstant(
    world.target,
    plan(),
    { ...world, overlap: async () => false },
    new AbortController().signal,
  );
  assert.deepEqual(world.journal, ['syncfs', 'freeze', 'dump', 'syncfs', 'snapshot', 'thaw']);
});

test('a paused container stays paused, and nothing is written by it before', async () => {
  world.frozen = true;
  assert.equal((await take(plan())).wasPaused, true);
  assert.equal(world.frozen, true);
  assert.ok(!world.journal.includes('thaw') && !world.journal.includes('freeze'));
});

test('disk only needs no CRIU', async () => {
  const result = await take(plan({ memory: false }));
  assert.equal(result.memory, false);
  assert.deepEqual(world.journal, ['syncfs', 'freeze', 'syncfs', 'snapshot', 'thaw']);
});

test('a failed dump that is required undoes all and carries CRIU’s own words', async () => {
  world.dump = criuFails;
  await assert.rejects(
    take(plan()),
    (error) => error instanceof FailedPrecondition && /Can't dump a unicorn/.test(error.message),
  );
  assertUndone();
});

test('a failed dump that may fail keeps the disk of the same instant', async () => {
  world.dump = criuFails;
  const result = await take(plan({ required: false }));
  assert.equal(result.memory, false);
  assert.equal(result.memoryError, "Can't dump a unicorn");
  assert.deepEqual([...world.snapshots], ['tank/web@now']);
  assert.equal(world.journal.filter((step) => step === 'snapshot').length, 1);
  assert.equal(world.frozen, false);
  assert.deepEqual(readdirSync(image()), []);
});

/** CRIU as it meets a connection that nobody has accepted yet, the first so many times. */
function meetsConnection(times: number): () => Promise<void> {
  return async () => {
    if (world.journal.filter((step) => step === 'dump').length > times) return world.writeImage();
    const log =
      '(00.1) Error (criu/sk-unix.c:506): unix: Non-empty write queue on an in-flight socket 0x1f\n';
    writeFileSync(join(folder, 'dump.log'), log);
    throw new OciError('criu', 'checkpoint', { subject: 'web', said: 'criu failed' });
  };
}

test('where a connection is just being made, all is undone and taken again a moment later', async () => {
  for (const required of [true, false]) {
    world = new World();
    world.dump = meetsConnection(2);
    const result = await take(plan({ required }));
    assert.equal(result.memory, true);
    assert.equal(result.memoryError, '');
    assert.deepEqual([...world.snapshots], ['tank/web@now']);
    const steps = world.journal.filter((step) => ['freeze', 'thaw', 'dump', 'destroy'].includes(step));
    const tried = ['freeze', 'dump', 'thaw', 'destroy'];
    assert.deepEqual(steps, [...tried, ...tried, 'freeze', 'dump', 'thaw']);
    rmSync(image(), { recursive: true });
  }
});

test('where one is being made each time, that is the reason in the end', async () => {
  world.dump = meetsConnection(Infinity);
  await assert.rejects(take(plan()), /not accepted yet: try again/);
  assert.equal(world.journal.filter((step) => step === 'dump').length, 6);
  assertUndone();
  world = new World();
  world.dump = meetsConnection(Infinity);
  const kept = await take(plan({ required: false }));
  assert.match(kept.memoryError, /in-flight/);
  assert.deepEqual([...world.snapshots], ['tank/web@now']);
});

test('what stands still for its user, or for others, does not run on for the sake of a connection', async () => {
  world.dump = meetsConnection(1);
  world.frozen = true;
  await assert.rejects(take(plan()), /in-flight/);
  assertUndone({ paused: true });
  world = new World();
  world.dump = meetsConnection(1);
  await assert.rejects(takeAt(gatesOf()), /in-flight/);
  assertUndone();
});

test('a caller that goes away between two of them ends it', async () => {
  const caller = new AbortController();
  world.dump = async () => {
    setTimeout(() => caller.abort(), 1);
    return meetsConnection(Infinity)();
  };
  await assert.rejects(take(plan(), caller.signal), Cancelled);
  assertUndone();
});

/** A plan whose dump is to refer to one before. */
function planWithParent(required: boolean): InstantPlan {
  const { memory, ...rest } = plan({ required });
  assert.ok(memory !== undefined);
  return { ...rest, memory: { ...memory, parentPath: '../pre-1' } };
}

test('a dump that fails with what was copied beforehand is made again without it, in the same instant', async () => {
  world.dump = async () => {
    if (world.parents.at(-1) !== undefined) return criuFails();
    world.writeImage();
  };
  const result = await take(planWithParent(true));
  assert.deepEqual(world.parents, ['../pre-1', undefined]);
  assert.ok(result.memory);
  assert.equal(result.parentError, "Can't dump a unicorn");
  assert.equal(world.journal.filter((step) => step === 'snapshot').length, 1);
  assert.equal(world.journal.filter((step) => step === 'freeze').length, 1);
  world.parents.length = 0;
  world.dump = criuFails;
  world.snapshots.clear();
  rmSync(image(), { recursive: true });
  await assert.rejects(take(planWithParent(true)), FailedPrecondition);
  assert.equal(world.parents.length, 2);
  assertUndone();
});

test('it is not made again where the container ran meanwhile', async () => {
  world.dump = async () => {
    await new Promise((resolve) => setImmediate(resolve));
    world.frozen = false;
    return criuFails();
  };
  await take(planWithParent(false));
  assert.deepEqual(world.parents, ['../pre-1']);
});

test('a CRIU that dies lets the container run, so the disk is taken anew', async () => {
  world.dump = async () => {
    await new Promise((resolve) => setImmediate(resolve));
    world.frozen = false;
    return criuFails();
  };
  await take(plan({ required: false }));
  assert.equal(world.journal.filter((step) => step === 'snapshot').length, 2);
  assert.deepEqual([...world.snapshots], ['tank/web@now']);
});

test('a container that ran during its dump makes no checkpoint', async () => {
  world.dump = async () => {
    world.writeImage();
    await new Promise((resolve) => setImmediate(resolve));
    world.frozen = false;
  };
  await assert.rejects(take(plan()), Aborted);
  assertUndone();
});

test('a dump that says it succeeded but left half an image is a failure', async () => {
  world.dump = async () => {
    writeFileSync(join(image(), 'pstree.img'), 'x');
  };
  await assert.rejects(take(plan()), /not whole: inventory\.img/);
  assertUndone();
});

test('a snapshot that fails undoes the dump; one that was there before is not destroyed', async () => {
  world.snapshots.add('tank/web@now');
  await assert.rejects(take(plan()), AlreadyExists);
  assert.deepEqual([...world.snapshots], ['tank/web@now']);
  assert.deepEqual(readdirSync(image()), []);
  assert.equal(world.frozen, false);
});

test('a pool that hangs does not keep a container frozen whose dump has failed', async () => {
  let letGo = (): void => undefined;
  world.beforeSnapshot = () => new Promise((resolve) => (letGo = resolve));
  world.dump = async () => {
    await new Promise((resolve) => setImmediate(resolve));
    return criuFails();
  };
  const taking = assert.rejects(take(plan()), FailedPrecondition);
  while (world.frozen || !world.journal.includes('dump'))
    await new Promise((resolve) => setTimeout(resolve, 1));
  letGo();
  await taking;
  assertUndone();
});

test('a deadline ends the checkpoint, even where memory may fail', async () => {
  world.dump = () =>
    Promise.reject(new OciError('timeout', 'checkpoint', { subject: 'web', said: 'too long' }));
  await assert.rejects(take(plan({ required: false })), DeadlineExceeded);
  assertUndone();
});

for (const step of ['syncfs', 'freeze', 'dump', 'snapshot'] as const) {
  for (const paused of [false, true]) {
    test(`a caller that goes away during ${step} of a ${paused ? 'paused' : 'running'} container undoes all`, async () => {
      world.frozen = paused;
      const gone = new AbortController();
      const push = world.journal.push.bind(world.journal);
      world.journal.push = (...steps) => {
        if (steps.includes(step)) gone.abort();
        return push(...steps);
      };
      if (paused && step === 'freeze') return; // never comes
      await assert.rejects(take(plan(), gone.signal), Cancelled);
      assertUndone({ paused });
    });
  }
}

test('a dump that waits for ever for a container that has ended is ended, and the container is named', async () => {
  world.dump = (signal) => {
    world.alive = false;
    return new Promise((_, reject) => {
      signal?.addEventListener('abort', () =>
        reject(new OciError('cancelled', 'checkpoint', { subject: 'web', said: '' })),
      );
    });
  };
  await assert.rejects(take({ ...plan({ required: false }), timeoutMs: 60_000 }), (error: unknown) => {
    assert.ok(error instanceof FailedPrecondition);
    assert.match(error.message, /web ended during its dump/);
    return true;
  });
  assertUndone();
});

test('a container that ends before, or between freeze and dump, is named as not running', async () => {
  world.afterFreeze = () => {
    world.alive = false;
  };
  await assert.rejects(take(plan({ required: false })), /web ended while it was being frozen/);
  assertUndone();
  assert.ok(!world.journal.includes('dump'));
  await assert.rejects(take(plan()), /web is not running/);
});

test('with exit it is killed where it stands, never thawed before', async () => {
  assert.equal((await take(plan({ exit: true }))).exited, true);
  assert.equal(world.journal.at(-1), 'kill');
  assert.ok(!world.journal.includes('thaw'));
});

test('with exit nothing is killed when the dump fails', async () => {
  world.dump = criuFails;
  await assert.rejects(take(plan({ exit: true })), FailedPrecondition);
  assert.equal(world.alive, true);
  assertUndone();
});

test('a folder with another image in it is refused and left as it is', async () => {
  await take(plan());
  const before = readdirSync(image());
  world.snapshots.clear();
  await assert.rejects(take(plan()), /not empty/);
  assert.deepEqual(readdirSync(image()), before);
});

/** Gates that note who came to them; `synced` stands for the snapshot that whoever holds them makes. */
function gatesOf(more: Partial<Gates> = {}): Gates {
  const reach = (what: string) => async (): Promise<void> => {
    world.journal.push(what);
    assert.ok(world.frozen, `at ${what} it stands still`);
  };
  const ready = (): never => assert.fail('that is before the instant');
  return { ready, still: reach('still'), synced: reach('synced'), dumped: reach('dumped'), ...more };
}

const takeAt = (gates: Gates, wanted = plan()) =>
  takeInstant(world.target, wanted, { ...worldTools(), gates }, new AbortController().signal);

/** The world without what makes snapshots: at gates nobody may call it. */
function worldTools(): InstantTools {
  const never = (): never => assert.fail('the disk is not snapshotted here');
  return { ...world, zfs: { snapshot: never, destroyIdempotent: never } };
}

test('one of several waits frozen at each gate, and its disk is left to whoever holds them', async () => {
  const result = await takeAt(gatesOf());
  assert.ok(result.memory);
  const gates = world.journal.filter((step) => ['still', 'synced', 'dumped', 'thaw'].includes(step));
  assert.deepEqual(gates, ['still', 'synced', 'dumped', 'thaw']);
  assert.ok(
    world.journal.indexOf('still') < world.journal.indexOf('dump'),
    'none is dumped before all stand still',
  );
});

test('at a gate that never opens it runs on, whichever that is, and its image is gone', async () => {
  for (const gate of ['still', 'synced', 'dumped'] as const) {
    world = new World();
    await assert.rejects(takeAt(gatesOf({ [gate]: () => Promise.reject(new Cancelled('gone')) })), Cancelled);
    assertUndone();
  }
});

test('a dump that fails while the disk waits at its gate lets the container run at once', async () => {
  world.dump = criuFails;
  const waits = new Promise<never>(() => undefined);
  await assert.rejects(takeAt(gatesOf({ synced: () => waits })), FailedPrecondition);
  assertUndone();
});

test('one whose CRIU died and let it run comes to the gate of the snapshot again', async () => {
  world.dump = async () => {
    world.frozen = false;
    await criuFails();
  };
  const result = await takeAt(
    gatesOf({ synced: async () => void world.journal.push('synced') }),
    plan({ required: false }),
  );
  assert.equal(result.memory, false);
  assert.equal(world.journal.filter((step) => step === 'synced').length, 2);
  assert.equal(world.frozen, false);
});

test('one that somebody else let run before the last gate opened is of no instant', async () => {
  const dumped = async (): Promise<void> => void (world.frozen = false);
  await assert.rejects(takeAt(gatesOf({ dumped })), Aborted);
});
