import { Command, Option } from 'commander';
import { versionText } from './commands/version.ts';
import type { Globals, Host } from './host.ts';
import type { Session } from './session.ts';

/** What the actions of the commands are given to work with. */
export interface Actions {
  readonly host: Host;
  /** Runs `work` with an open session. */
  readonly connected: (globals: Options, work: (session: Session) => Promise<void>) => Promise<void>;
}

/** Global options as they were typed. */
export interface Options extends Partial<Globals> {
  json?: boolean;
  quiet?: boolean;
}

interface CommandOptions extends Options {
  name?: string;
  exit?: boolean;
  diskOnly?: boolean;
  requireMemory?: boolean;
  snapshot?: string;
  as?: string;
  from?: string;
  count?: string;
  allNamespaces?: boolean;
  bundle?: string;
  dryRun?: boolean;
  daemon?: boolean;
}

/**
 * The command line's grammar and help. Each action imports its command when it is called, so that none pays for
 * loading the others.
 */
export function buildProgram({ host, connected }: Actions): Command {
  const program = new Command('stasis')
    .description('Freeze, rewind and clone running containers.')
    .option('-n, --namespace <name>', 'containerd namespace (CONTAINERD_NAMESPACE, else default)')
    .option('-a, --address <path>', "containerd's socket (CONTAINERD_ADDRESS, else what stasisd is set to)")
    .option('--socket <path>', "stasisd's socket (STASIS_ADDRESS, else from the configuration)")
    .option('--json', 'print data as JSON')
    .option('-q, --quiet', 'print names only, and no progress')
    .option('--progress', 'show progress even where stderr is no terminal')
    .version(versionText().trimEnd(), '-v, --version', 'print the version')
    .helpOption('-h, --help', 'show help')
    .configureHelp({ showGlobalOptions: true })
    .showSuggestionAfterError(true)
    .addHelpText(
      'after',
      examples('stasis checkpoint web', 'stasis restore web', 'stasis clone web --count 3'),
    )
    .addHelpText(
      'after',
      '\nExit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 exists, 5 precondition, 6 no space,\n' +
        '7 unreachable, 8 unsupported, 9 cancelled, 10 permission, 11 time-out, 12 conflict.',
    );

  const optionsOf = (command: Command): CommandOptions => command.optsWithGlobals<CommandOptions>();

  add(program, 'checkpoint <container>', 'Take memory and disk of a running container, from one instant')
    .option('--name <name>', 'name of the checkpoint (default: checkpoint-<unix seconds>)')
    .option('--exit', 'stop the container with the checkpoint')
    .addOption(new Option('--disk-only', 'leave the memory out').conflicts('requireMemory'))
    .option('--require-memory', 'fail where memory cannot be had, instead of a disk-only checkpoint')
    .addHelpText(
      'after',
      examples(
        'stasis checkpoint web',
        'stasis checkpoint web --name before-upgrade',
        'stasis checkpoint web --exit',
      ),
    )
    .action(async (container: string, _: unknown, command: Command) => {
      const options = optionsOf(command);
      const { checkpoint } = await import('./commands/checkpoint.ts');
      await connected(options, (session) => checkpoint(session, container, options));
    });

  add(program, 'restore <container>', 'Rewind a container to a checkpoint, or bring it back under a new name')
    .option('--snapshot <name>', 'the checkpoint (default: the latest)')
    .option('--as <new>', 'restore to a new container of this name, and leave this one as it is')
    .option(
      '--require-memory',
      'fail where memory cannot be restored, instead of starting anew on the old disk',
    )
    .addHelpText(
      'after',
      examples(
        'stasis restore web',
        'stasis restore web --snapshot before-upgrade',
        'stasis restore web --as web-old',
      ),
    )
    .action(async (container: string, _: unknown, command: Command) => {
      const options = optionsOf(command);
      const { restore } = await import('./commands/restore.ts');
      await connected(options, (session) => restore(session, container, options));
    });

  add(program, 'clone <container>', 'Start copies of a container that go on from the same instant')
    .option('--from <name>', 'the checkpoint to start from (default: one is taken now, and kept)')
    .option('--count <number>', 'how many (default: 1)')
    .option(
      '--name <pattern>',
      'names of the clones: {} is a number, {source} the name (default: {source}-{})',
    )
    .addHelpText(
      'after',
      examples(
        'stasis clone web',
        'stasis clone web --count 3',
        "stasis clone web --from before-upgrade --count 10 --name 'try-{}'",
      ),
    )
    .action(async (container: string, _: unknown, command: Command) => {
      const options = optionsOf(command);
      const { clone } = await import('./commands/clone.ts');
      await connected(options, (session) => clone(session, container, options));
    });

  add(
    program,
    'ls [container]',
    'List containers and checkpoints; as a tree where some were rewound or cloned',
  )
    .option('--all-namespaces', 'of all containerd namespaces')
    .addHelpText('after', examples('stasis ls', 'stasis ls web', 'stasis ls --all-namespaces --json'))
    .action(async (container: string | undefined, _: unknown, command: Command) => {
      const options = optionsOf(command);
      const { ls } = await import('./commands/ls.ts');
      await connected(options, (session) => ls(session, container, options));
    });

  add(program, 'inspect <container> [checkpoint]', 'Show all that is known of a container or a checkpoint')
    .addHelpText(
      'after',
      examples('stasis inspect web', 'stasis inspect web before-upgrade', 'stasis inspect web --json'),
    )
    .action(async (container: string, checkpoint: string | undefined, _: unknown, command: Command) => {
      const { inspect } = await import('./commands/inspect.ts');
      await connected(optionsOf(command), (session) => inspect(session, container, checkpoint));
    });

  add(program, 'rm <container> <checkpoints...>', 'Remove checkpoints; the container and its clones run on')
    .addHelpText('after', examples('stasis rm web before-upgrade', 'stasis rm web one two three'))
    .action(async (container: string, checkpoints: string[], _: unknown, command: Command) => {
      const { rm } = await import('./commands/rm.ts');
      await connected(optionsOf(command), (session) => rm(session, container, checkpoints));
    });

  add(program, 'run <id>', 'Create and start a container from an OCI bundle')
    .option('-b, --bundle <folder>', 'folder with config.json and the root file system', '.')
    .addHelpText('after', examples('stasis spec --bundle web', 'stasis run --bundle web web'))
    .action(async (id: string, _: unknown, command: Command) => {
      const { bundle = '.', ...options } = optionsOf(command);
      const { run } = await import('./commands/run.ts');
      await connected(options, (session) => run(session, id, { bundle }));
    });

  add(program, 'spec [command...]', 'Write the config.json of an OCI bundle, to be edited and run')
    .option('-b, --bundle <folder>', 'where to write it; made if it does not exist', '.')
    .addHelpText(
      'after',
      examples(
        'stasis spec --bundle web',
        "stasis spec --bundle web -- sh -c 'while sleep 1; do date; done'",
      ),
    )
    .action(async (argv: string[], _: unknown, command: Command) => {
      const { bundle = '.', json = false, quiet = false } = optionsOf(command);
      const { spec } = await import('./commands/spec.ts');
      await spec(host, argv, { bundle, json, quiet });
    });

  add(program, 'info', 'Show what this host can do, and how to get what is missing')
    .addHelpText('after', examples('stasis info', 'stasis info --json'))
    .action(async (_: unknown, command: Command) => {
      const { info } = await import('./commands/info.ts');
      await connected(optionsOf(command), info);
    });

  add(program, 'version', 'Show the version')
    .option('--daemon', "stasisd's, too")
    .addHelpText('after', examples('stasis version', 'stasis version --daemon --json'))
    .action(async (_: unknown, command: Command) => {
      const options = optionsOf(command);
      const { json = false, quiet = false, daemon = false } = options;
      const { version } = await import('./commands/version.ts');
      if (daemon) await connected(options, (session) => version(host, { json, quiet }, session));
      else await version(host, { json, quiet });
    });

  add(
    program,
    'adopt [datasets...]',
    'Take over what a lost database, another host or zfs receive left in the pool',
  )
    .option('--dry-run', 'only show what would be adopted')
    .addHelpText(
      'after',
      examples('stasis adopt --dry-run', 'stasis adopt tank/stasis/containers/default/web'),
    )
    .action(async (datasets: string[], _: unknown, command: Command) => {
      const options = optionsOf(command);
      const { adopt } = await import('./commands/adopt.ts');
      await connected(options, (session) => adopt(session, datasets, options));
    });

  add(program, 'df', 'Show what takes space in the pool, and what in the trash waits for what')
    .option('--all-namespaces', 'of all containerd namespaces')
    .addHelpText('after', examples('stasis df', 'stasis df --all-namespaces --json'))
    .action(async (_: unknown, command: Command) => {
      const options = optionsOf(command);
      const { df } = await import('./commands/df.ts');
      await connected(options, (session) => df(session, options));
    });

  return program;
}

function add(program: Command, usage: string, summary: string): Command {
  return program.command(usage).description(summary).allowExcessArguments(false);
}

function examples(...lines: string[]): string {
  return `\nExamples:\n${lines.map((line) => `  ${line}`).join('\n')}`;
}
