// Calls to shims over ttrpc, without containerd between.
import { TaskDefinition } from '../../../src/proto/gen/containerd/task.ts';
import { Client } from '../../../ttrpc/index.ts';

export interface ShimAddress {
  readonly socket: string;
  /** Of the Task service: 2 or 3. */
  readonly version: number;
}

export async function connect({ socket, version }: ShimAddress) {
  const client = await Client.connect(socket);
  const definition =
    version < 3 ? TaskDefinition : { ...TaskDefinition, fullName: `containerd.task.v${version}.Task` };
  return { tasks: client.service(definition), close: () => client.close() };
}

/** Asks each task for Stats once a second, over a connection of its own, spread over the second. */
export async function askForStats(
  tasks: readonly (ShimAddress & { readonly id: string })[],
  seconds: number,
): Promise<void> {
  const deadline = Date.now() + seconds * 1000;
  await Promise.all(
    tasks.map(async ({ id, ...address }, at) => {
      const shim = await connect(address);
      await new Promise((resolve) => setTimeout(resolve, (at * 1000) / tasks.length));
      while (Date.now() < deadline) {
        const began = Date.now();
        const { stats } = await shim.tasks.stats({ id });
        if (stats === undefined || stats.value.length === 0) throw new Error(`${id} has no stats`);
        await new Promise((resolve) => setTimeout(resolve, Math.max(0, 1000 - (Date.now() - began))));
      }
      shim.close();
    }),
  );
}

/** Calls of Connect per second on one connection, `inFlight` at once. */
export async function callsPerSecond(address: ShimAddress, id: string, inFlight: number): Promise<number> {
  const shim = await connect(address);
  const spin = async (milliseconds: number): Promise<number> => {
    const began = performance.now();
    let calls = 0;
    const caller = async (): Promise<void> => {
      while (performance.now() - began < milliseconds) {
        await shim.tasks.connect({ id });
        calls++;
      }
    };
    await Promise.all(Array.from({ length: inFlight }, caller));
    return (calls * 1000) / (performance.now() - began);
  };
  await spin(500); // both sides' compilers
  const rate = await spin(1500);
  shim.close();
  return rate;
}
