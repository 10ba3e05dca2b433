// docs/reference/cli.md
import { type CommandModel, flatten, type OptionModel, usage } from './grammar.ts';
import { cell, table } from './markdown.ts';

export function cliPage(program: CommandModel): string {
  const commands = flatten(program).slice(1);
  return [
    '# Command line reference\n',
    `${program.description} What the commands are for, with examples of their output, is in [the command line](../cli.md);`,
    'exit codes are in [exit codes](../exit-codes.md). The same text is in the man pages: `man stasis`, `man stasis-restore`.\n',
    '## Options of every command\n',
    optionTable(program.options),
    ...commands.map(section),
  ].join('\n');
}

function section(command: CommandModel): string {
  const title = ['stasis', ...command.path].join(' ');
  const parts = [`## ${title}\n`, `${command.description}.\n`];
  if (command.commands.length > 0) {
    const links = command.commands.map(
      (one) => `[${one.path.join(' ')}](#${['stasis', ...one.path].join('-')})`,
    );
    return [...parts, `Commands: ${links.join(', ')}.\n`].join('\n');
  }
  parts.push('```', usage(command), '```\n');
  if (command.options.length > 0) parts.push(optionTable(command.options));
  if (command.examples.length > 0) parts.push('Examples:\n', '```', ...command.examples, '```\n');
  return parts.join('\n');
}

function optionTable(options: readonly OptionModel[]): string {
  return table(
    ['option', 'what'],
    options.map(({ flags, description, choices }) => [
      `\`${flags}\``,
      cell(description + (choices.length > 0 ? ` (${choices.join(', ')})` : '')),
    ]),
  );
}
