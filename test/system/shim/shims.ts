import { readFileSync } from 'node:fs';
import { TaskDefinition } from '../../../src/proto/gen/containerd/task.ts';
import { Client } from '../../../ttrpc/index.ts';
import { stack } from '../support/stack.ts';

/** The stack's run folder. */
export const runDir = /^run_dir = "(.*)"$/m.exec(readFileSync(stack.config, 'utf8'))?.[1] ?? '';

/** The socket of the shim that holds a container. */
export function shimSocket(name: string): string {
  return readFileSync(`${runDir}/tasks/default/${name}/address`, 'utf8').trim();
}

/** The process id of that shim. */
export async function shimPid(name: string): Promise<number> {
  const client = await Client.connect(shimSocket(name));
  try {
    return (await client.service(TaskDefinition).connect({ id: name })).shimPid;
  } finally {
    client.close();
  }
}
