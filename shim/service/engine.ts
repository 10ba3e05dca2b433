import { engineService, type EngineHandlers } from '../../src/checkpoint/engine-service.ts';
import type { InstantTools } from '../../src/checkpoint/instant.ts';
import type { Config } from '../../src/config/config.ts';
import { CriuFinder } from '../../src/criu/find.ts';
import type { Logger } from '../../src/log.ts';
import type { Exec } from '../../src/sys/command.ts';
import { openZfs, type Zfs } from '../../src/zfs/zfs.ts';
import { instantTarget } from '../container/checkpoint.ts';
import { runWithoutSessions, sessionsOf } from '../container/sessions.ts';
import type { Containers } from './containers.ts';

/** stasisd's service on the shim's socket: the engine of src/checkpoint, over this shim's containers. */
export function engineOf(containers: Containers, tools: InstantTools): EngineHandlers {
  return engineService(
    {
      find(id) {
        const container = containers.find(id);
        const target = container === undefined ? undefined : instantTarget(container);
        if (container === undefined || target === undefined) return undefined;
        return {
          target,
          runtimeName: container.runtime.door.name,
          rootfs: container.rootfs,
          terminal: container.request.terminal,
          execSessions: sessionsOf(container).length,
          exclusive: async (run, withMemory, terms) => {
            if (withMemory) await container.fill?.ended;
            return runWithoutSessions(container, terms, run);
          },
        };
      },
    },
    tools,
  );
}

/** The engine's tools. ZFS is looked for at the first snapshot: a host may have none. */
export function instantTools(exec: Exec, config: Config, log: Logger): InstantTools {
  let zfs: Promise<Zfs> | undefined;
  const open = (): Promise<Zfs> => {
    zfs ??= openZfs(exec, { zfs: config.zfs.zfs_path, zpool: config.zfs.zpool_path });
    zfs.catch(() => (zfs = undefined));
    return zfs;
  };
  return {
    log,
    criu: new CriuFinder(exec, config.runtime.criu),
    zfs: {
      snapshot: async (...args) => (await open()).snapshot(...args),
      destroyIdempotent: async (...args) => (await open()).destroyIdempotent(...args),
    },
  };
}
