import { isShimSilent, silentShim } from '../containerd/client.ts';
import { detailsOf } from '../errors.ts';
import { whySilent } from '../shims/list.ts';

/** The error of a shim that does not answer with what its guard says of it; anything else as it is. */
export async function explainSilence(error: unknown, runDir: string, namespace: string): Promise<unknown> {
  const id = isShimSilent(error) ? detailsOf(error)?.subject : undefined;
  if (id === undefined) return error;
  const why = await whySilent(runDir, namespace, id);
  return why === undefined ? error : silentShim(id, why);
}
