/**
 * Waits for jobs that run beside each other, for all of them also when one fails, so that nothing of them is still on its
 * way when the caller clears up. Throws what the first of those that failed, in the order given, threw.
 */
export async function together<T extends readonly unknown[]>(
  ...jobs: { readonly [K in keyof T]: Promise<T[K]> }
): Promise<T> {
  const results = await Promise.allSettled(jobs);
  for (const result of results) if (result.status === 'rejected') throw result.reason;
  return results.map((result) => (result.status === 'fulfilled' ? result.value : undefined)) as unknown as T;
}
