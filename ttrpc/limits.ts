// What one connection may cost a server.

/** Bounds for each connection. A call beyond one fails with ResourceExhausted; the others go on. */
export interface Limits {
  /** Calls in flight. Generous, because every waiting `Wait` of a task is one. */
  readonly calls: number;
  /** Bytes of the requests in flight. A single request is always admitted when it is alone. */
  readonly requestBytes: number;
  /** Bytes of answers that the client has not read. */
  readonly queuedBytes: number;
}

export const DEFAULT_LIMITS: Limits = { calls: 4096, requestBytes: 64 << 20, queuedBytes: 64 << 20 };
