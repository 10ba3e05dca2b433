/** Where a process's streams go, as the client asked: empty, a FIFO's path, or an address such as `file:///log`. */
export interface StdioAddresses {
  readonly stdin: string;
  readonly stdout: string;
  readonly stderr: string;
  readonly terminal: boolean;
}

/** What the OCI runtime is given for its child. */
export type ChildFds = readonly [number | 'ignore', number | 'ignore', number | 'ignore'];

/**
 * One process's connected streams. Its bytes pass through pipes (or a terminal): CRIU dumps nothing else, and nothing
 * of them stays in this process longer than one call.
 */
export interface ProcessIo {
  /** Descriptors for the runtime, valid until `handedOver`. */
  readonly childFds: ChildFds;
  /** Where the runtime is to send the terminal's master. */
  readonly consoleSocket: string | undefined;
  /** The runtime has copies of the child's descriptors now, or failed: ours are closed. */
  handedOver(): void;
  /** The process exists: takes its terminal and starts copying. */
  started(): Promise<void>;
  /**
   * Opens the client's input. Not before the client has been answered that the process exists: one that meets the end of
   * its input earlier has nobody yet to tell it to with CloseIO, and never does.
   */
  takeInput(): void;
  /** No more input from the client: the process reads the end once the client's own end is closed. */
  closeStdin(): void;
  /**
   * To be waited for before the process's end is told: clients have read what it has written, as long as they read at all. At once
   * where nothing waits.
   */
  taken(): Promise<void>;
  /** Settles when all output has been passed on. */
  readonly drained: Promise<void>;
  /** Lets go of everything at once. */
  close(): void;
  /** The terminal's new size; nothing where there is no terminal. */
  resize(columns: number, rows: number): void;
}
