// containerd-shim-stasis-v2: the actions that containerd asks of a shim binary. The launcher (launcher.sh) answers most
// calls by itself and runs this program for the rest.
import { writeSync } from 'node:fs';
import { loadConfig } from '../src/config/config.ts';
import { InvalidArgument, messageOf } from '../src/errors.ts';
import { refuseDebugger } from '../src/sys/process.ts';
import { commit, version } from '../src/version.ts';
import { parseArguments } from './arguments.ts';
import { serve } from './lifecycle/serve.ts';
import { runtimeInfo } from './lifecycle/info.ts';
import { readStdin } from './lifecycle/stdin.ts';
import { runDelete } from './lifecycle/delete.ts';
import { work } from './worker/work.ts';

async function main(): Promise<void> {
  const args = parseArguments(process.argv.slice(2));
  if (args.version) {
    process.stdout.write(`containerd-shim-stasis-v2:\n  Version:  ${version}\n  Revision: ${commit}\n`);
    return;
  }
  if (args.info) {
    process.stdout.write(await runtimeInfo(await readStdin(), loadConfig()));
    return;
  }
  switch (args.action) {
    case 'start':
      await serve(args, loadConfig(), process.env);
      return;
    case 'worker':
      await work(loadConfig());
      return;
    case 'delete':
      await runDelete(args, loadConfig(), process.env);
      return;
    default:
      throw new InvalidArgument(`unknown action ${JSON.stringify(args.action)}; known: start, delete`);
  }
}

refuseDebugger();
try {
  await main();
} catch (error) {
  // Now, whatever was begun: one that waits for us, the guard or containerd, learns the reason when we have ended.
  writeSync(2, `containerd-shim-stasis-v2: ${messageOf(error)}\n`);
  process.exit(1);
}
