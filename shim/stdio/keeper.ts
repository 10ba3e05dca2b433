import type { Readiness } from '../../src/sys/epoll.ts';

/** Keeps descriptors for the process that comes after this one: the guard. */
export interface Keeper {
  /** Settles when the descriptor is kept under that name. @throws an Error where it could not be */
  hold(name: string, fd: number): Promise<void>;
  /**
   * Opens a file there, and here: at no instant is this process the only one that has it open. @param flags of open(2)
   * @throws an Error where it could not be opened
   */
  open(name: string, path: string, flags: number): Promise<number>;
  /** Ours again, of what was kept when this process began. @throws SysError */
  take(name: string): number | undefined;
  drop(names: readonly string[]): void;
}

/** Where one process's streams are kept. */
export interface Kept {
  readonly keeper: Keeper;
  readonly readiness: Readiness;
  /** Before each of their names. */
  readonly prefix: string;
}
