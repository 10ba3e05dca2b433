import { openConsoleIo } from './console-io.ts';
import { openKeptIo } from './kept-io.ts';
import { openPipeIo, type IoContext } from './pipe-io.ts';
import type { ProcessIo, StdioAddresses } from './stdio.ts';

export { abandonKeptIo, dropKeptIo, takeKeptIo } from './kept-io.ts';
export type { IoContext } from './pipe-io.ts';
export type { ProcessIo, StdioAddresses } from './stdio.ts';

/**
 * Connects a process's streams as the client asked.
 * @param socketFolder a folder for console sockets, with a short path
 * @throws InvalidArgument for an address that nobody can serve; ENOENT, ENXIO for a FIFO that is not there
 */
export function openIo(
  addresses: StdioAddresses,
  context: IoContext,
  socketFolder: string,
): Promise<ProcessIo> {
  if (context.kept !== undefined) return openKeptIo(addresses, context, context.kept, socketFolder);
  return addresses.terminal
    ? openConsoleIo(addresses, context, socketFolder)
    : openPipeIo(addresses, context);
}
