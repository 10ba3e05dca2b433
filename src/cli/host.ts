/** Where text goes: process.stdout and process.stderr fit. */
export interface Output {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
}

/** What the command line has of the process around it; tests hand in their own. */
export interface Host {
  readonly env: NodeJS.ProcessEnv;
  /** Working directory; throws when it was removed. */
  readonly cwd: () => string;
  readonly stdout: Output;
  readonly stderr: Output;
  /** Aborted by Ctrl-C. */
  readonly signal: AbortSignal;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

/** What holds for every command. */
export interface Globals {
  namespace: string;
  /** containerd's socket, when the user named it. */
  address: string | undefined;
  /** stasisd's socket. */
  socket: string;
  json: boolean;
  quiet: boolean;
  progress: boolean;
}
