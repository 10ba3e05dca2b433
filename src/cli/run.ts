import { CommanderError } from 'commander';
import { InvalidArgument } from '../errors.ts';
import { dataOf, faultText, faultView } from './fault.ts';
import type { Globals, Host } from './host.ts';
import { namespaceName } from './names.ts';
import type { Actions, Options } from './grammar.ts';
import { buildProgram, commandNames } from './program.ts';
import { runtimeCall, tellCaller } from './runtime-call.ts';
import type { Session } from './session.ts';

/**
 * Runs one command line, without the program's name, and returns the exit code that docs/exit-codes.md lists.
 * Never throws: every error becomes a message on stderr and, with --json, an object on stdout.
 */
export async function run(argv: readonly string[], host: Host): Promise<number> {
  let session: Session | undefined;
  const connected: Actions['connected'] = async (options, work) => {
    const [commands, globals] = await Promise.all([import('./commands/index.ts'), globalsOf(options, host)]);
    session = new commands.Session(host, globals);
    try {
      await work(commands, session);
    } finally {
      session.close();
    }
  };
  try {
    const refusal = runtimeCall(argv);
    if (refusal !== undefined) {
      tellCaller(argv, `${refusal.message}: ${refusal.remedy ?? ''}`);
      throw refusal;
    }
    const program = buildProgram(argv, { host, connected });
    let usage = '';
    for (const command of program.commands.flatMap((one) => [one, ...one.commands]).concat(program)) {
      command.exitOverride().configureOutput({
        writeOut: (text) => void host.stdout.write(text),
        writeErr: (text) => (usage += text),
      });
    }
    if (argv.length === 0) {
      host.stderr.write(program.helpInformation());
      return faultView(new InvalidArgument('')).exitCode;
    }
    await program.parseAsync(argv, { from: 'user' }).catch((error: unknown) => {
      if (!(error instanceof CommanderError)) throw error;
      if (error.exitCode !== 0) throw usageError(error, usage, argv);
    });
    return 0;
  } catch (error) {
    host.stderr.write(faultText(error));
    const view = faultView(error);
    if (argv.includes('--json')) {
      const warnings = session === undefined ? {} : { ...session.partial, warnings: session.warnings };
      host.stdout.write(`${JSON.stringify({ ...warnings, ...dataOf(error), error: view }, null, 2)}\n`);
    }
    return view.exitCode;
  }
}

/** A slip in the command line, in our own form. */
function usageError(error: CommanderError, usage: string, argv: readonly string[]): InvalidArgument {
  const command = argv.find((argument) => commandNames.includes(argument));
  const asked =
    argv[0] === 'help' ? argv.find((argument, index) => index > 0 && !argument.startsWith('-')) : undefined;
  const help = command === undefined ? '' : `${command} `;
  const text =
    error.code !== 'commander.help'
      ? error.message.replace(/^error: /, '').replace(/\n/g, ' ')
      : asked === undefined || asked === command
        ? 'no command given'
        : `unknown command '${asked}'`;
  return new InvalidArgument(text || usage, { reason: 'usage', remedy: `see \`stasis ${help}--help\`` });
}

/**
 * What holds for the whole run, from options and environment.
 * @throws InvalidArgument for names that cannot be, or a configuration that cannot be read
 */
async function globalsOf(options: Options, { env }: Host): Promise<Globals> {
  const address = options.address ?? (env['CONTAINERD_ADDRESS'] || undefined);
  return {
    namespace: namespaceName(options.namespace ?? (env['CONTAINERD_NAMESPACE'] || 'default')),
    address: address === undefined ? undefined : socketAddress(address, '--address'),
    socket: socketAddress(
      options.socket ?? (env['STASIS_ADDRESS'] || (await configuredSocket(env))),
      '--socket',
    ),
    json: options.json ?? false,
    quiet: options.quiet ?? false,
    progress: options.progress ?? false,
  };
}

/** The configuration is read, and its parser loaded, only where nothing else names the socket. */
async function configuredSocket(env: NodeJS.ProcessEnv): Promise<string> {
  const { configPath, loadConfig, socketPath } = await import('../config/config.ts');
  return socketPath(loadConfig(configPath(env), env['STASIS_CONFIG'] !== undefined));
}

/** A path, which containerd's clients also write as `unix:///path`. */
function socketAddress(address: string, option: string): string {
  const path = address.replace(/^unix:(?:\/\/)?/, '');
  if (/^[\x20-\x7e]+$/.test(path)) return path;
  throw new InvalidArgument(`${option} ${JSON.stringify(address)} is not the path of a socket`, {
    subject: address,
    remedy: 'give an absolute path in ASCII, such as /run/stasis/stasisd.sock',
  });
}
