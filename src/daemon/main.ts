import { setTimeout as sleep } from 'node:timers/promises';
import { diffService } from '../../snapshotter/diff/service.ts';
import { DiffThreads } from '../../snapshotter/diff/threads.ts';
import { readPool } from '../../snapshotter/load.ts';
import { snapshotsService } from '../../snapshotter/service.ts';
import { SnapshotStore } from '../../snapshotter/store.ts';
import { stasisService } from '../api/service.ts';
import { Catalog } from '../checkpoint/catalog.ts';
import { Fills } from '../checkpoint/fills.ts';
import { type Host, snapshotterName } from '../checkpoint/host.ts';
import { ImageCache } from '../checkpoint/image-cache.ts';
import { KeyedMutex } from '../checkpoint/locks.ts';
import { Standstill } from '../checkpoint/still/standstill.ts';
import { MemoryStore } from '../checkpoint/memory-store.ts';
import { Pending } from '../checkpoint/pending.ts';
import { endPlacing } from '../checkpoint/placing.ts';
import { RewindNotes } from '../checkpoint/rewind/notes.ts';
import { SmallFiles } from '../checkpoint/small-files.ts';
import { clearStaging, stagingFolder } from '../checkpoint/staging.ts';
import { Storing } from '../checkpoint/storing.ts';
import { UnfinishedSets, unfinishedSets } from '../checkpoint/unfinished-sets.ts';
import { removeUnfinished } from '../checkpoint/unfinished.ts';
import { finishRewinds } from '../checkpoint/rewind/unfinished.ts';
import { type Config, configPath, loadConfig, shimSocketPath, socketPath } from '../config/config.ts';
import { Containerd } from '../containerd/client.ts';
import { CriuFinder } from '../criu/find.ts';
import { Code, codeOf, InvalidArgument, messageOf, StasisError } from '../errors.ts';
import { createLogger, type Logger } from '../log.ts';
import { surviveLostErrors } from '../mistakes.ts';
import { RuntimeBinaries } from '../oci/binary.ts';
import { DiffDefinition } from '../proto/gen/containerd/diff.ts';
import { SnapshotsDefinition } from '../proto/gen/containerd/snapshots.ts';
import { StasisDefinition } from '../proto/gen/stasis/stasis.ts';
import { execWith, OwnChildren } from '../sys/spawned-command.ts';
import { refuseDebugger } from '../sys/process.ts';
import { version } from '../version.ts';
import { ZfsMounter } from '../zfs/mounter.ts';
import { openZfs } from '../zfs/zfs.ts';
import { answerTo } from './arguments.ts';
import { assertUnclaimed, claim } from './claim.ts';
import { Database } from './database.ts';
import { ContainerdPeer } from './containerd-peer.ts';
import { listenForShims } from './disks-listener.ts';
import { keepNewSpaceSmall } from '../sys/heap.ts';
import { listen } from './listener.ts';
import { readyCommand } from './ready-command.ts';
import { refusing } from './refuse.ts';
import { applyChanges } from './reload.ts';
import { rootDataset } from './root.ts';
import { journalLine, logsToJournal, Systemd } from './systemd.ts';

const SWEEP_INTERVAL_MS = 60_000;
const MEBIBYTE = 1 << 20;
/** More than a thousand images' small files. */
const SMALL_FILES = 64 * MEBIBYTE;
const ROUTE_TIMEOUT_MS = 10_000;
const ROUTE_POLL_MS = 50;
/** sysexits.h */
const EX_CONFIG = 78;

async function main(): Promise<void> {
  refuseDebugger();
  keepNewSpaceSmall();
  const config = loadConfig();
  const journal = logsToJournal(process.env);
  const log = createLogger(
    (line, level) => process.stderr.write(journal ? journalLine(line, level) : line),
    () => config.log.level,
  );
  surviveLostErrors(log);
  const systemd = new Systemd(process.env, (error) =>
    log.warn('systemd cannot be told how we are', { error }),
  );
  log.info('starting', { version, config: configPath(), pid: process.pid });
  const background = new Set<Promise<unknown>>();
  const host = await openHost(config, log, (what, work) => {
    const logged = work.catch((error: unknown) =>
      log.error(`could not ${what}`, { error: messageOf(error) }),
    );
    background.add(logged);
    void logged.finally(() => background.delete(logged));
  });

  // Before anybody else can have the locks of these containers.
  host.later('finish restores that were cut off', finishRewinds(host, await host.rewinds.left()));
  const threads = new DiffThreads(log);
  const { database } = host;
  const lookAtDatabase = async (): Promise<void> => {
    // It may be just starting, or start after us; whatever it asks for first looks again.
    await host.identify().catch(() => undefined);
  };
  const peer = new ContainerdPeer(config.containerd.address, () => {
    host.containerd.forgetUuid();
    database.forget();
    host.later('find containerd', lookAtDatabase());
  });
  const listener = await listen({
    path: socketPath(config),
    log,
    common: (register) => register(StasisDefinition, stasisService(host)),
    trusted: (register) => {
      register(
        SnapshotsDefinition,
        snapshotsService(host.store, () => host.containerd.uuid(), database),
      );
      register(DiffDefinition, diffService({ store: host.store, containerd: host.containerd, threads }));
    },
    others: (register) => {
      register(SnapshotsDefinition, refusing(SnapshotsDefinition, config.containerd.address));
      register(DiffDefinition, refusing(DiffDefinition, config.containerd.address));
    },
    isTrusted: (pid) => peer.is(pid),
  });
  const shims = await listenForShims(shimSocketPath(config), host);
  log.info('ready', {
    socket: socketPath(config),
    root: host.root,
    zfs: host.zfs.kind,
    staging: host.staging,
  });

  const status = `serving ${host.root} to ${config.containerd.address}`;
  systemd.ready(status);
  const ready = readyCommand(config, log);
  process.on('SIGHUP', () => {
    systemd.reloading();
    reload(config, log);
    systemd.ready(status);
  });

  host.later('find containerd', lookAtDatabase());
  const sweep = (): void => {
    host.later('remove what unfinished operations left', removeUnfinished(host));
    host.later(
      'finish restores that were cut off',
      host.rewinds.left().then((left) => finishRewinds(host, left)),
    );
    host.later('sweep the pool', host.store.sweep());
    host.later('sweep memory images', host.memory.sweep());
  };
  sweep();
  const timer = setInterval(sweep, SWEEP_INTERVAL_MS);

  const stop = async (signal: string): Promise<void> => {
    log.info('stopping', { signal });
    systemd.stopping();
    clearInterval(timer);
    host.fills.close();
    await Promise.all([listener.close(), shims.close()]);
    await Promise.all(background);
    await threads.close();
    await ready?.stop();
    host.containerd.close();
    process.exit(0);
  };
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => void stop(signal));
}

/** A configuration with mistakes changes nothing. */
function reload(config: Config, log: Logger): void {
  try {
    const { applied, pending } = applyChanges(config, loadConfig());
    log.info('read the configuration again', { changed: applied.join(' ') || 'nothing' });
    if (pending.length > 0) log.warn('these keys count after a restart', { keys: pending.join(' ') });
  } catch (error) {
    log.error('the configuration stays as it was', { error: messageOf(error) });
  }
}

/** Reads the pool and clears what an earlier stasisd was cut off in. */
async function openHost(
  config: Config,
  log: Logger,
  later: Host['later'],
): Promise<Host & { readonly database: Database }> {
  const runDir = config.daemon.run_dir;
  const exec = execWith(new OwnChildren());
  const zfs = await openZfs(exec, { zfs: config.zfs.zfs_path, zpool: config.zfs.zpool_path });
  const root = await rootDataset(zfs, config);
  await assertUnclaimed(zfs, root);
  const mounter = new ZfsMounter(zfs, root, `${runDir}/mnt`);
  const listing = await readPool(zfs, root);
  // The catalog first, so that the store's index never sees the halves that it destroys.
  const catalog = new Catalog(zfs);
  const halves = await catalog.load(listing);
  for (const { snapshot, why } of halves) log.warn('destroyed half a checkpoint', { snapshot, why });
  const sets = new UnfinishedSets(zfs, root);
  if (unfinishedSets(listing).size > 0) await sets.clear();
  const store = new SnapshotStore({ zfs, mounter, root, trashGrace: config.zfs.trash_grace, log });
  await store.load(halves.length === 0 ? listing : await readPool(zfs, root));
  await claim(zfs, root);
  await endPlacing(runDir);
  const staging = await stagingFolder(config.checkpoint.staging_dir, runDir);
  const cached = config.checkpoint.cache * MEBIBYTE;
  const images = new ImageCache(cached);
  const small = new SmallFiles(staging, Math.min(cached, SMALL_FILES));
  const memory = new MemoryStore(zfs, mounter, root, { images, small }, log);
  const fills = new Fills({ runDir, later });
  await memory.load(fills.load((clone) => memory.drop(clone)));
  const rewinds = new RewindNotes(runDir);
  const cut = (await rewinds.left()).map(({ note }) => note);
  for (const { disk } of cut) store.holdGeneration(disk.dataset);
  await clearStaging(staging, new Set(cut.map(({ stage }) => stage)));
  const containerd = new Containerd(config.containerd.address);
  const database = new Database(containerd, store, log);
  return {
    config,
    root,
    zfs,
    store,
    catalog,
    memory,
    unfinishedSets: sets,
    storing: new Storing(),
    images,
    standstill: new Standstill(),
    containerd,
    pending: new Pending(runDir),
    rewinds,
    fills,
    criu: new CriuFinder(exec, config.runtime.criu),
    runtimes: new RuntimeBinaries(exec),
    locks: new KeyedMutex(),
    log,
    staging,
    later,
    identify: identifier(containerd, store, database),
    database,
  };
}

/**
 * Learns containerd's UUID, and waits until its way back to us is open again: after our restart its connection is
 * refused until its own backoff (3 s at most) has passed, and what needs a snapshot would fail meanwhile.
 */
function identifier(containerd: Containerd, store: SnapshotStore, database: Database): Host['identify'] {
  let routed: Promise<void> | undefined;
  return async () => {
    const uuid = await containerd.uuid();
    store.owner = uuid;
    routed ??= waitForRoute(containerd);
    await routed;
    await database.look(uuid).catch(() => undefined); // what containerd begins with looks again
    return uuid;
  };
}

async function waitForRoute(containerd: Containerd): Promise<void> {
  const deadline = Date.now() + ROUTE_TIMEOUT_MS;
  for (const namespace of await containerd.namespaces()) {
    while (!(await reaches(containerd, namespace)) && Date.now() < deadline) await sleep(ROUTE_POLL_MS);
  }
}

/** A listing asks us of each snapshot that containerd knows; most other calls it answers from its own database. */
async function reaches(containerd: Containerd, namespace: string): Promise<boolean> {
  try {
    for await (const _ of containerd
      .namespace(namespace)
      .snapshots.list({ snapshotter: snapshotterName, filters: [] }));
    return true;
  } catch (error) {
    // containerd before 2.4 passes errors of a listing on without their code.
    return codeOf(error) !== Code.Unavailable && !/connection error|unavailable/i.test(messageOf(error));
  }
}

const answer = answerTo(process.argv.slice(2));
if (answer === undefined) {
  main().catch(fail);
} else {
  process.stdout.write(answer.stdout);
  process.stderr.write(answer.stderr);
  process.exitCode = answer.exit;
}

function fail(error: unknown): never {
  const remedy = error instanceof StasisError && error.remedy !== undefined ? `; ${error.remedy}` : '';
  const line = `stasisd: ${messageOf(error).replace(/\.\s*$/, '')}${remedy}\n`;
  process.stderr.write(logsToJournal(process.env) ? journalLine(line, 'error') : line);
  // A configuration with mistakes will not mend itself: the unit does not start stasisd again after this one.
  process.exit(error instanceof InvalidArgument ? EX_CONFIG : 1);
}
