import { Command, Option } from 'commander';
import { version, versionText } from './commands/version.ts';
import { type Actions, examples, optionsOf, type Register } from './grammar.ts';
import { hostCommands } from './host-commands.ts';

/** An option that may be given several times. */
function collect(value: string, before: string[] | undefined): string[] {
  return [...(before ?? []), value];
}

/** Left out, the host and the size of the image decide. */
function lazyOption(): Option {
  return new Option('--lazy', 'bring the memory in while it runs; fail where that is not possible').conflicts(
    'eager',
  );
}

function eagerOption(): Option {
  return new Option('--eager', 'read all of the memory before it runs');
}

/** The grammar and help of each command, in the order of the help page. */
const containerCommands: Readonly<Record<string, Register>> = {
  checkpoint: (command, { connected }) =>
    command
      .argument('[containers...]')
      .description('Take memory and disk of running containers, all from one instant')
      .option('--name <name>', 'name of the checkpoint, or of the set (default: checkpoint-<unix seconds>)')
      .option('--label <key=value>', 'all running containers with this label; repeated: with each', collect)
      .option('--pod <id>', 'all running containers of a CRI sandbox, as its own id does')
      .addOption(new Option('--exit', 'stop the container with the checkpoint').conflicts('wait'))
      .addOption(
        new Option('--no-wait', 'return when the instant is over, and let stasisd store it').conflicts(
          'exit',
        ),
      )
      .addOption(new Option('--disk-only', 'leave the memory out').conflicts('requireMemory'))
      .option('--require-memory', 'fail where memory cannot be had, instead of a disk-only checkpoint')
      .addOption(
        new Option(
          '--exec-sessions <policy>',
          'what becomes of exec sessions (default: checkpoint.exec_sessions in the configuration)',
        ).choices(['leave', 'refuse', 'wait', 'kill']),
      )
      .addOption(
        new Option(
          '--precopy',
          'copy memory while it runs, so that it stands still for the last changes alone',
        ).conflicts('diskOnly'),
      )
      .addOption(
        new Option(
          '--precopy-rounds <number>',
          'copy that often at most (default: checkpoint.precopy_rounds in the configuration)',
        ).implies({ precopy: true }),
      )
      .addOption(
        new Option(
          '--precopy-goal <MiB>',
          'end with a round that has copied no more (default: checkpoint.precopy_goal in the configuration)',
        ).implies({ precopy: true }),
      )
      .addHelpText(
        'after',
        examples(
          'stasis checkpoint web',
          'stasis checkpoint web --name before-upgrade',
          'stasis checkpoint web --exit',
          'stasis checkpoint web --precopy',
          'stasis checkpoint web db cache --name before-upgrade',
          'stasis checkpoint --label app=shop --require-memory',
        ),
      )
      .action(async (containers: string[]) => {
        const options = optionsOf(command);
        const [only] = containers;
        const alone = only !== undefined && containers.length === 1 && !options.label && !options.pod;
        await connected(options, (all, session) =>
          alone ? all.checkpoint(session, only, options) : all.checkpointSet(session, containers, options),
        );
      }),

  wait: (command, { connected }) =>
    command
      .argument('<container>')
      .argument('[checkpoint]')
      .description('Wait until a checkpoint is stored, and tell how that went')
      .addHelpText(
        'after',
        examples('stasis checkpoint web --no-wait && stasis wait web', 'stasis wait web before-upgrade'),
      )
      .action(async (container: string, checkpoint: string | undefined) => {
        await connected(optionsOf(command), (all, session) => all.wait(session, container, checkpoint));
      }),

  restore: (command, { connected }) =>
    command
      .argument('[containers...]')
      .description('Rewind containers to a checkpoint or a set, or bring one back under a new name')
      .addOption(new Option('--snapshot <name>', 'the checkpoint (default: the latest)').conflicts('set'))
      .option('--set <name>', 'the members of this set, or those of them that are named')
      .addOption(
        new Option(
          '--as <new>',
          'restore to a new container of this name, and leave this one as it is',
        ).conflicts('set'),
      )
      .option(
        '--require-memory',
        'fail where memory cannot be restored, instead of starting anew on the old disk',
      )
      .addOption(lazyOption())
      .addOption(eagerOption())
      .addHelpText(
        'after',
        examples(
          'stasis restore web',
          'stasis restore web --snapshot before-upgrade',
          'stasis restore web --as web-old',
          'stasis restore --set before-upgrade',
          'stasis restore web db',
        ),
      )
      .action(async (containers: string[]) => {
        const options = optionsOf(command);
        const [only] = containers;
        const alone = only !== undefined && containers.length === 1 && options.set === undefined;
        if (!alone && options.as !== undefined) command.error('--as takes one container');
        await connected(options, (all, session) =>
          alone ? all.restore(session, only, options) : all.restoreSet(session, containers, options),
        );
      }),

  clone: (command, { connected }) =>
    command
      .argument('<container>')
      .description('Start copies of a container that go on from the same instant')
      .option('--from <name>', 'the checkpoint to start from (default: one is taken now, and kept)')
      .option('--count <number>', 'how many (default: 1)')
      .option(
        '--name <pattern>',
        'names of the clones: {} is a number, {source} the name (default: {source}-{})',
      )
      .option(
        '--require-memory',
        'fail where memory cannot be had, instead of starting anew on the disk alone',
      )
      .addOption(lazyOption())
      .addOption(eagerOption())
      .addHelpText(
        'after',
        examples(
          'stasis clone web',
          'stasis clone web --count 3',
          "stasis clone web --from before-upgrade --count 10 --name 'try-{}'",
        ),
      )
      .action(async (container: string) => {
        const options = optionsOf(command);
        await connected(options, (all, session) => all.clone(session, container, options));
      }),

  ls: (command, { connected }) =>
    command
      .argument('[container]')
      .description('List containers and checkpoints; as a tree where some were rewound or cloned')
      .option('--all-namespaces', 'of all containerd namespaces')
      .addHelpText('after', examples('stasis ls', 'stasis ls web', 'stasis ls --all-namespaces --json'))
      .action(async (container: string | undefined) => {
        const options = optionsOf(command);
        await connected(options, (all, session) => all.ls(session, container, options));
      }),

  inspect: (command, { connected }) =>
    command
      .argument('<container>')
      .argument('[checkpoint]')
      .description('Show all that is known of a container or a checkpoint')
      .addHelpText(
        'after',
        examples('stasis inspect web', 'stasis inspect web before-upgrade', 'stasis inspect web --json'),
      )
      .action(async (container: string, checkpoint: string | undefined) => {
        await connected(optionsOf(command), (all, session) => all.inspect(session, container, checkpoint));
      }),

  rm: (command, { connected }) =>
    command
      .argument('<container>')
      .argument('<checkpoints...>')
      .description('Remove checkpoints; the container and its clones run on')
      .addHelpText('after', examples('stasis rm web before-upgrade', 'stasis rm web one two three'))
      .action(async (container: string, checkpoints: string[]) => {
        await connected(optionsOf(command), (all, session) => all.rm(session, container, checkpoints));
      }),

  run: (command, { connected }) =>
    command
      .argument('<id>')
      .description('Create and start a container from an OCI bundle')
      .option('-b, --bundle <folder>', 'folder with config.json and the root file system', '.')
      .addHelpText('after', examples('stasis spec --bundle web', 'stasis run --bundle web web'))
      .action(async (id: string) => {
        const { bundle = '.', ...options } = optionsOf(command);
        await connected(options, (all, session) => all.run(session, id, { bundle }));
      }),

  spec: (command, { host }) =>
    command
      .argument('[command...]')
      .description('Write the config.json of an OCI bundle, to be edited and run')
      .option('-b, --bundle <folder>', 'where to write it; made if it does not exist', '.')
      .addHelpText(
        'after',
        examples(
          'stasis spec --bundle web',
          "stasis spec --bundle web -- sh -c 'while sleep 1; do date; done'",
        ),
      )
      .action(async (argv: string[]) => {
        const { bundle = '.', json = false, quiet = false } = optionsOf(command);
        const { spec } = await import('./commands/spec.ts');
        await spec(host, argv, { bundle, json, quiet });
      }),

  doctor: (command, { connected }) =>
    command
      .argument('[container]')
      .description('Say whether this host, and a container, can be checkpointed, and what is in the way')
      .addHelpText('after', examples('stasis doctor', 'stasis doctor web', 'stasis doctor web --json'))
      .action(async (container: string | undefined) => {
        await connected(optionsOf(command), (all, session) => all.doctor(session, container));
      }),

  info: (command, { connected }) =>
    command
      .description('Show what this host can do, and how to get what is missing')
      .addHelpText('after', examples('stasis info', 'stasis info --json'))
      .action(async () => {
        await connected(optionsOf(command), (all, session) => all.info(session));
      }),

  version: (command, { host, connected }) =>
    command
      .description('Show the version')
      .option('--daemon', "stasisd's, too")
      .addHelpText('after', examples('stasis version', 'stasis version --daemon --json'))
      .action(async () => {
        const { json = false, quiet = false, daemon = false, ...options } = optionsOf(command);
        if (!daemon) return version(host, { json, quiet });
        await connected(options, (_, session) => version(host, { json, quiet }, session));
      }),

  adopt: (command, { connected }) =>
    command
      .argument('[datasets...]')
      .description('Take over what a lost database, another host or zfs receive left in the pool')
      .option('--dry-run', 'only show what would be adopted, or dropped')
      .option('--drop', 'destroy those that are named instead, adopted or not, with all that is on them')
      .addHelpText(
        'after',
        examples(
          'stasis adopt --dry-run',
          'stasis adopt tank/stasis/containers/default/web',
          'stasis adopt --drop tank/stasis/containers/default/web',
        ),
      )
      .action(async (datasets: string[]) => {
        const options = optionsOf(command);
        await connected(options, (all, session) => all.adopt(session, datasets, options));
      }),

  df: (command, { connected }) =>
    command
      .description('Show what takes space in the pool, and what in the trash waits for what')
      .option('--all-namespaces', 'of all containerd namespaces')
      .addHelpText(
        'after',
        `\nforeign: of another containerd, or received (see stasis adopt). What was made by hand is not shown.\n${examples('stasis df', 'stasis df --all-namespaces --json')}`,
      )
      .action(async () => {
        const options = optionsOf(command);
        await connected(options, (all, session) => all.df(session, options));
      }),
};

const commands: Readonly<Record<string, Register>> = { ...containerCommands, ...hostCommands };

/** Names of all commands. */
export const commandNames: readonly string[] = Object.keys(commands);

/**
 * The command line's grammar and help. Only commands that `argv` names are built, all when it names none: a
 * dozen with their options would take 7 ms, one takes less than 1.
 */
export function buildProgram(argv: readonly string[], actions: Actions): Command {
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
    .helpCommand('help [command]', 'show help for a command')
    .configureHelp({ showGlobalOptions: true })
    .addHelpText(
      'after',
      examples('stasis checkpoint web', 'stasis restore web', 'stasis clone web --count 3') +
        '\n\nExit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 exists, 5 precondition, 6 no space,\n' +
        '7 unreachable, 8 unsupported, 9 cancelled, 10 permission, 11 time-out, 12 conflict.',
    );
  const named = commandNames.filter((name) => argv.includes(name));
  for (const name of named.length > 0 ? named : commandNames) {
    commands[name]?.(program.command(name).allowExcessArguments(false), actions);
  }
  return program;
}
