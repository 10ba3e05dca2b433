// The OCI runtime as the shim sees it: runc and crun behind one interface.

/** A standard stream for the runtime's child: a descriptor, or none. */
export type Stdio = number | 'ignore';
/** [stdin, stdout, stderr] */
export type StdioFds = readonly [Stdio, Stdio, Stdio];

export type RuntimeName = 'runc' | 'crun';

/** What was found behind a runtime's name. */
export interface RuntimeBinary {
  readonly name: RuntimeName;
  /** Absolute path, or the name as given where PATH decides. */
  readonly path: string;
  /** `1.1.5`; empty when the program does not say. */
  readonly version: string;
  /** Whether it can checkpoint at all (crun may be built without CRIU). */
  readonly criu: boolean;
  /** Whether another program stands around it, which has something to do in each call. */
  readonly wrapped?: boolean;
}

/** What bounds each call. Every runtime call has a deadline, given or the default. */
export interface CallLimits {
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

export interface CreateOptions extends CallLimits {
  readonly id: string;
  readonly bundle: string;
  readonly pidFile: string;
  /** Unix socket that gets the terminal's master; the spec asks for a terminal then. */
  readonly consoleSocket?: string;
  readonly noPivot?: boolean;
  readonly noNewKeyring?: boolean;
  /** Become the container's own standard streams. */
  readonly stdioFds: StdioFds;
}

/** A container's first process, made and not started yet. */
export interface FirstProcess {
  readonly pid: number;
  /** Aborted when it has ended. */
  readonly ended: AbortSignal;
  /**
   * Opens the FIFO at which it waits so that another process has it open too: a reader that is killed just after the process has met it would
   * have it fail. Without it this process opens it alone.
   */
  readonly openFifo?: (path: string, flags: number) => Promise<OpenFifo>;
}

/** A FIFO that another process has open too. */
export interface OpenFifo {
  /** Closed by the caller. */
  readonly fd: number;
  /** The other process closes it. */
  letGo(): void;
}

export interface StartOptions extends CallLimits {
  /** With it a start may do without the runtime's program: direct-start.ts. */
  readonly first?: FirstProcess;
}

export interface DeleteOptions extends CallLimits {
  /** Ends what still runs. */
  readonly force?: boolean;
  /** The first process, where it has ended and been waited for. With it a delete may do without the runtime's program: direct-delete.ts. */
  readonly ended?: number;
}

export interface ExecOptions extends CallLimits {
  readonly id: string;
  /** OCI `process` as a JSON file. */
  readonly processFile: string;
  readonly pidFile: string;
  readonly consoleSocket?: string;
  readonly stdioFds: StdioFds;
  /** Return as soon as the process runs (the shim reaps it); otherwise with its end. */
  readonly detach: boolean;
  /** The container's first process: what is started gets its clocks, which are its own after a restore. */
  readonly init?: number;
}

export const cgroupsModes = ['ignore', 'soft', 'full', 'strict'] as const;
export type CgroupsMode = (typeof cgroupsModes)[number];

/** What a dump and its restore must agree on. */
export interface CriuOptions {
  readonly tcpEstablished?: boolean;
  readonly extUnixSk?: boolean;
  readonly shellJob?: boolean;
  readonly fileLocks?: boolean;
  readonly manageCgroupsMode?: CgroupsMode;
  /** Kinds of namespaces (`network`) whose content is not dumped; runc only. */
  readonly emptyNs?: readonly string[];
  /** A file of further CRIU options, for what the runtimes have no flag for: criu(8), CRIU_CONFIG_FILE. */
  readonly criuConfig?: string;
}

export interface CheckpointOptions extends CriuOptions, CallLimits {
  readonly id: string;
  readonly imageDir: string;
  /** Where CRIU writes `dump.log`. */
  readonly workDir: string;
  readonly leaveRunning: boolean;
  /** Image folder of the previous dump, relative to `imageDir`. */
  readonly parentPath?: string;
  /** A descriptor that gets a zero byte when the lazy page server is ready; runc only. */
  readonly statusFd?: number;
  /** The container's network namespace has no TCP socket, and CRIU is told not to lock it. */
  readonly networkIdle?: boolean;
  /** Called as soon as the program that dumps has been started. */
  readonly onStart?: () => void;
}

/** A copy of memory that is made while the container runs. */
export interface PreDumpOptions extends CallLimits {
  readonly id: string;
  readonly imageDir: string;
  /** Where CRIU writes `pre-dump.log`. */
  readonly workDir: string;
  /** Image folder of the pre-dump before, relative to `imageDir`. */
  readonly parentPath?: string;
}

export interface RestoreOptions extends CriuOptions, CallLimits {
  readonly id: string;
  readonly bundle: string;
  readonly imageDir: string;
  /** Where CRIU writes `restore.log`. */
  readonly workDir: string;
  readonly pidFile: string;
  readonly consoleSocket?: string;
  readonly detach: boolean;
  /** Let the shim, a subreaper itself, be the parent; crun never makes itself one. */
  readonly noSubreaper?: boolean;
  readonly noPivot?: boolean;
  readonly stdioFds: StdioFds;
  /** Folder with a `criu` that waits for the container's disk: shim/process/disk-gate.ts. */
  readonly diskGate?: string;
  /** Memory comes from a page server on `workDir`'s `lazy-pages.socket`; runc only. */
  readonly lazyPages?: boolean;
}

export type RuntimeStatus = 'creating' | 'created' | 'running' | 'paused' | 'stopped';

export interface RuntimeState {
  readonly id: string;
  /** 0 when there is no process. */
  readonly pid: number;
  readonly status: RuntimeStatus;
  readonly bundle: string;
}

/**
 * The door to one container's OCI runtime. Each method starts the program once, in the container's bundle; a usual dump of
 * runc's, a usual start, and a usual delete of crun's are done without it.
 * All of them throw `OciError`, whose `kind` says what happened and whose `code` is the status for clients.
 */
export interface OciRuntime {
  readonly name: RuntimeName;
  readonly path: string;
  /** Whether a restore asks CRIU for its version, in a call of its own, before it looks at the root file system. */
  readonly asksCriuFirst: boolean;
  /** The CRIU that it calls; undefined where there is none. Looks for it. */
  criu(): string | undefined;
  create(options: CreateOptions): Promise<void>;
  start(id: string, options?: StartOptions): Promise<void>;
  /** `signal`: a number or name. `all`: every process of the container. */
  kill(id: string, signal: number | string, options?: CallLimits & { all?: boolean }): Promise<void>;
  delete(id: string, options?: DeleteOptions): Promise<void>;
  exec(options: ExecOptions): Promise<void>;
  state(id: string, limits?: CallLimits): Promise<RuntimeState>;
  /** Process ids, as the runtime's own pid namespace numbers them. */
  ps(id: string, limits?: CallLimits): Promise<number[]>;
  pause(id: string, limits?: CallLimits): Promise<void>;
  resume(id: string, limits?: CallLimits): Promise<void>;
  checkpoint(options: CheckpointOptions): Promise<void>;
  /** Of usual containers of runc's only: `unsupported` for all others. The container stands still for a moment. */
  preDump(options: PreDumpOptions): Promise<void>;
  restore(options: RestoreOptions): Promise<void>;
  /** `resources`: OCI LinuxResources as JSON. */
  update(id: string, resources: string, limits?: CallLimits): Promise<void>;
  /** `features` as the runtime prints them (JSON), for the shim's `-info`. */
  features(limits?: CallLimits): Promise<string>;
}

export const ociErrorKinds = [
  'not-found', // no such container
  'not-running', // it has none of its processes left
  'already-exists',
  'paused', // not possible while frozen
  'process-finished', // kill of a process that is gone
  'missing-executable', // the container's program does not exist or cannot be executed
  'missing-runtime', // the runtime itself does not exist
  'criu', // CRIU failed; its log has the reason
  'unsupported', // this runtime has no such option
  'timeout',
  'cancelled',
  'unknown',
] as const;
export type OciErrorKind = (typeof ociErrorKinds)[number];
