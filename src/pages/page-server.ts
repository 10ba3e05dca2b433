/**
 * What brings a restored container's memory in while it runs. The OCI runtime restores the tasks with their memory
 * registered with userfaultfd(2); the server answers their page faults from the image, copies the rest in beside that, and
 * ends. CRIU's own is behind this interface (criu-page-server.ts), so that another can take its place.
 */
export interface PageServers {
  /**
   * Starts a server that is ready to be restored against when this returns.
   * @throws StasisError with the server's own words
   */
  start(request: PageServerRequest): Promise<PageServer>;
}

export interface PageServerRequest {
  readonly imageDir: string;
  /** Where the restore finds it (as `lazy-pages.socket`), and its log. */
  readonly workDir: string;
}

/** One restore's server: it serves that restore's processes, and what they fork, and then ends. */
export interface PageServer {
  readonly pid: number;
  /** Resolves with its end, and never rejects. */
  readonly ended: Promise<PageServerEnd>;
  /** Bytes of the image that it has read so far. */
  readBytes(): number;
  /** Ends it. What still waits for a page then goes on with zeros, unless the fault is held: see HeldFaults. */
  stop(): void;
}

export interface PageServerEnd {
  /** Whether all memory is there. */
  readonly complete: boolean;
  /** Why not. */
  readonly why: string;
}
