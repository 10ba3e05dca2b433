// The command line as data, read from the commander program itself: what the reference page, the man pages and the
// completions are made from.
import type { Argument, Command, Option } from 'commander';
import { buildProgram } from '../../src/cli/program.ts';

/** What a shell can offer for a value. */
export type Kind = 'container' | 'checkpoint' | 'file' | 'choice' | 'none';

export interface ArgumentModel {
  readonly name: string;
  readonly required: boolean;
  readonly variadic: boolean;
  readonly kind: Kind;
}
export interface OptionModel {
  /** Such as `-b, --bundle <folder>`. */
  readonly flags: string;
  readonly names: readonly string[];
  /** Name of its value; undefined for a switch. */
  readonly value: string | undefined;
  readonly description: string;
  readonly kind: Kind;
  readonly choices: readonly string[];
}
export interface CommandModel {
  /** Such as `['config', 'show']`; empty for the program. */
  readonly path: readonly string[];
  readonly description: string;
  readonly args: readonly ArgumentModel[];
  readonly options: readonly OptionModel[];
  readonly examples: readonly string[];
  /** What its help says after the examples. */
  readonly notes: readonly string[];
  readonly commands: readonly CommandModel[];
}

const KINDS: Readonly<Record<string, Kind>> = {
  container: 'container',
  containers: 'container',
  checkpoint: 'checkpoint',
  checkpoints: 'checkpoint',
  file: 'file',
  folder: 'file',
  path: 'file',
};
/** Options whose value is the name of something that exists. */
const OPTION_KINDS: Readonly<Record<string, Kind>> = { '--snapshot': 'checkpoint', '--from': 'checkpoint' };

/** The whole grammar. */
export function readGrammar(): CommandModel {
  const nothing = new Proxy({}, { get: () => () => undefined });
  const program = buildProgram([], nothing as Parameters<typeof buildProgram>[1]);
  return commandModel(program, []);
}

/** A command and all below it, the program first. */
export function flatten(command: CommandModel): CommandModel[] {
  return [command, ...command.commands.flatMap(flatten)];
}

/** `stasis restore <container> [options]`. */
export function usage({ path, args, options }: CommandModel): string {
  const words = args.map(({ name, required, variadic }) => {
    const word = variadic ? `${name}...` : name;
    return required ? `<${word}>` : `[${word}]`;
  });
  return ['stasis', ...path, ...words, ...(options.length > 0 ? ['[options]'] : [])].join(' ');
}

function commandModel(command: Command, path: readonly string[]): CommandModel {
  const after = helpAfter(command).split('\n');
  const examples = after.filter((line) => /^ {2}stasis /.test(line)).map((line) => line.trim());
  const notes = after.filter((line) => line !== '' && line !== 'Examples:' && !/^ {2}stasis /.test(line));
  return {
    path,
    description: command.description(),
    args: command.registeredArguments.map(argumentModel),
    options: command.options.filter(({ hidden }) => !hidden).map(optionModel),
    examples,
    notes,
    commands: command.commands
      .filter((one) => one.name() !== 'help')
      .map((one) => commandModel(one, [...path, one.name()])),
  };
}

function argumentModel(argument: Argument): ArgumentModel {
  const name = argument.name();
  const { required, variadic } = argument;
  return { name, required, variadic, kind: KINDS[name] ?? 'none' };
}

function optionModel(option: Option): OptionModel {
  const value = /[<[]([^\]>]+)[\]>]/.exec(option.flags)?.[1];
  const names = [option.short, option.long].filter((name) => name !== undefined);
  const choices = option.argChoices ?? [];
  const kind =
    choices.length > 0 ? 'choice' : (OPTION_KINDS[option.long ?? ''] ?? KINDS[value ?? ''] ?? 'none');
  return { flags: option.flags, names, value, description: option.description, kind, choices };
}

/** The part of the help page that commands add at its end. */
function helpAfter(command: Command): string {
  let text = '';
  command.configureOutput({ writeOut: (part) => (text += part), writeErr: () => undefined });
  command.outputHelp();
  return text.slice(command.helpInformation().length);
}
