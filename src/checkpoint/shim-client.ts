import { readFile } from 'node:fs/promises';
import { Client } from '../../ttrpc/index.ts';
import type { ServiceClient } from '../../ttrpc/service.ts';
import { codeOf, hasErrno, messageOf, StasisError } from '../errors.ts';
import { EngineDefinition } from '../proto/gen/stasis/engine.ts';

/** The engine in the shim that holds a container. */
export interface Engine {
  readonly calls: ServiceClient<typeof EngineDefinition>;
  close(): void;
}

/**
 * Connects to the shim that runs a container.
 * @returns undefined where no shim of ours runs it: the container has another runtime, or no task
 */
export async function findEngine(runDir: string, namespace: string, id: string): Promise<Engine | undefined> {
  let address: string;
  try {
    address = (await readFile(`${runDir}/tasks/${namespace}/${id}/address`, 'utf8')).trim();
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
  const client = await Client.connect(address).catch(() => undefined); // the file of a shim that died
  if (client === undefined) return undefined;
  return { calls: client.service(EngineDefinition), close: () => client.close() };
}

/** An error that the shim answered, as one of ours. */
export function fromShim(error: unknown, subject: string): StasisError {
  return new StasisError(codeOf(error), messageOf(error), { subject, cause: error });
}
