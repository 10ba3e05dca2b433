import type { Config } from '../../src/config/config.ts';
import type { Logger } from '../../src/log.ts';
import type { RuntimeBinaries } from '../../src/oci/binary.ts';
import type { PageServers } from '../../src/pages/page-server.ts';
import type { Exec } from '../../src/sys/command.ts';
import type { Events } from '../events/queue.ts';
import type { Paths } from '../paths.ts';
import type { Reaper } from '../reaper/reaper.ts';
import type { Kept } from '../stdio/keeper.ts';
import type { Depository } from '../worker/deposit.ts';
import type { Keeping } from './record.ts';

/** The `log` FIFOs of the bundles that are being served. */
export interface LogFifos {
  open(id: string, bundle: string): void;
  close(id: string): void;
}

/** What all containers of one shim share. */
export interface ShimContext {
  readonly namespace: string;
  readonly config: Config;
  readonly paths: Paths;
  readonly exec: Exec;
  readonly binaries: RuntimeBinaries;
  readonly pageServers: PageServers;
  readonly reaper: Reaper;
  readonly events: Events;
  readonly log: Logger;
  readonly logs: LogFifos;
  /** Who keeps the tasks, to others: this process, or its guard. */
  readonly self: Keeping;
  /** Keeps what outlives this process; undefined where there is no guard. */
  readonly kept: (Omit<Kept, 'prefix'> & { readonly depository: Depository }) | undefined;
  /** Folder for console sockets; its path is short. */
  readonly socketFolder: string;
  /** Soft limit of open files that containerd gave its shims; undefined where it is not known. */
  readonly openFiles: number | undefined;
  /** Where this shim listens. */
  readonly socket: string;
}
