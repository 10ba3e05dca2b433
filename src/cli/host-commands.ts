import { type Command, Option } from 'commander';
import { examples, optionsOf, type Register } from './grammar.ts';

/** The grammar and help of the commands that are about this host rather than a container; they need no stasisd. */
export const hostCommands: Readonly<Record<string, Register>> = {
  setup: (command, { connected }) =>
    command
      .description('Prepare this host: pool, stasisd, containerd; without --yes only show what would be done')
      .option('--yes', 'do it')
      .addOption(new Option('--dry-run', 'show it, and do nothing').conflicts('yes'))
      .option('--pool <pool>', 'the pool, or the dataset to be made, where there are several')
      .option('--restart-containerd', 'restart containerd, and go back to its old configuration if it fails')
      .option('--no-check', 'do not run and checkpoint a throw-away container at the end')
      .option('--undo', 'give back what setup changed, to the last byte')
      .option('--keep-data', 'with --undo: leave the dataset alone even if it is empty')
      .option('--containerd-config <file>', "containerd's file (default: /etc/containerd/config.toml)")
      .addHelpText(
        'after',
        examples(
          'stasis setup',
          'stasis setup --yes --restart-containerd',
          'stasis setup --pool tank --yes',
          'stasis setup --undo --yes',
        ),
      )
      .action(async () => {
        const options = optionsOf(command);
        const { setup } = await import('./commands/setup.ts');
        await connected(options, (_, session) => setup(session, options));
      }),

  config: (command, { host }) => {
    command
      .description('Show or check the configuration')
      .addHelpText('after', examples('stasis config show --origin', 'stasis config check'));
    sub(command, 'show')
      .description('Show the configuration in force')
      .option('--origin', 'show where each value comes from')
      .addHelpText('after', examples('stasis config show', 'stasis config show --origin'))
      .action(async (_, self: Command) => {
        const { configShow } = await import('./commands/config.ts');
        configShow(host, optionsOf(self));
      });
    sub(command, 'check')
      .argument('[file]')
      .description('Check a configuration file, and show every mistake with its line')
      .addHelpText('after', examples('stasis config check', 'stasis config check /tmp/config.toml'))
      .action(async (file: string | undefined, _, self: Command) => {
        const { configCheck } = await import('./commands/config.ts');
        configCheck(host, file, optionsOf(self));
      });
    return command;
  },

  shim: (command, { host }) => {
    command
      .description('Show the shims that run on this host, or replace their programs under running containers')
      .addHelpText('after', examples('stasis shim ls', 'stasis shim upgrade --all'));
    sub(command, 'ls')
      .description('List shims: guard and worker, their versions, and how often a worker was started again')
      .addHelpText('after', examples('stasis shim ls', 'stasis shim ls --json'))
      .action(async (_, self: Command) => {
        const { shimLs } = await import('./commands/shim.ts');
        await shimLs(host, optionsOf(self));
      });
    sub(command, 'upgrade')
      .description('Replace the workers of shims by the installed version; containers run on')
      .option('--all', 'of all containerd namespaces')
      .addHelpText('after', examples('stasis shim upgrade', 'stasis shim upgrade --all'))
      .action(async (_, self: Command) => {
        const { shimUpgrade } = await import('./commands/shim.ts');
        await shimUpgrade(host, optionsOf(self));
      });
    return command;
  },
};

function sub(command: Command, name: string): Command {
  return command.command(name).allowExcessArguments(false);
}
