/** One thing that we do otherwise than containerd's own shim, on purpose. */
export interface Difference {
  readonly scenario: string;
  readonly theirs: RegExp;
  readonly ours: string;
  readonly reason: string;
}

export const deliberate: readonly Difference[] = [];
