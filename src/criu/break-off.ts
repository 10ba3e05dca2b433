import { chmod, chown, mkdir, rm, stat } from 'node:fs/promises';
import { hasErrno } from '../errors.ts';

/**
 * Makes a CRIU at its dump give up by itself, with its own cleaning up: takes the image folder away, so that it cannot make
 * its next file. A signal would not do: for moments at a time CRIU has the container's tasks run calls for it (compel's
 * injected code), and a task whose tracer dies in one of them is ended by SIGTRAP.
 *
 * `gone` is resolved when the folder is gone, or cannot be removed (a mount point, say) and is empty; `putBack` makes it
 * again as it was, unless the folder that it was in is gone, and is called once no CRIU is at work.
 */
export interface BreakOff {
  readonly gone: Promise<void>;
  putBack(): Promise<void>;
}

/** @param imageDir the folder that CRIU was given; its content is lost */
export function breakOffDump(imageDir: string): BreakOff {
  const before = stat(imageDir).catch(() => undefined);
  const gone = before.then(() =>
    // CRIU makes files meanwhile, so that the folder may be found full again.
    rm(imageDir, { recursive: true, force: true, maxRetries: 20, retryDelay: 1 }).catch(() => undefined),
  );
  return {
    gone,
    async putBack() {
      await gone;
      const entry = await before;
      if (entry === undefined) return;
      try {
        await mkdir(imageDir, { mode: entry.mode & 0o777 }).catch((error: unknown) => {
          if (!hasErrno(error, 'EEXIST')) throw error;
        });
        await chmod(imageDir, entry.mode & 0o777);
        await chown(imageDir, entry.uid, entry.gid);
      } catch (error) {
        // Who cancelled the dump has taken the folder above it away: nobody waits for this one.
        if (!hasErrno(error, 'ENOENT')) throw error;
      }
    },
  };
}
