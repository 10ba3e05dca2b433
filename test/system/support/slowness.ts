/**
 * How many times slower than usual this machine is: an emulated processor, in the virtual machine (test/README.md).
 * Every time limit of a system test is multiplied by it.
 */
export const slowness = Number(process.env['STASIS_TEST_SLOWNESS'] ?? 1);

/** How often a test repeats what it looks for by chance: fewer times where each takes longer, and at least twice. */
export function rounds(usual: number): number {
  return Math.max(2, Math.round(usual / slowness));
}
