import type { Command } from 'commander';
import { examples, optionsOf, type Register } from './grammar.ts';

/** The grammar and help of the commands that are about this host rather than a container; they need no stasisd. */
export const hostCommands: Readonly<Record<string, Register>> = {
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
};

function sub(command: Command, name: string): Command {
  return command.command(name).allowExcessArguments(false);
}
