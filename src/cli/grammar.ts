import type { Command } from 'commander';
import type { Globals, Host } from './host.ts';
import type { Session } from './session.ts';

type Commands = typeof import('./commands/index.ts');

/** What the actions of the commands are given to work with. */
export interface Actions {
  readonly host: Host;
  /** Loads the commands and runs `work` with one of them and an open session. */
  readonly connected: (
    options: Options,
    work: (commands: Commands, session: Session) => Promise<void>,
  ) => Promise<void>;
}

/** Global options as they were typed. */
export interface Options extends Partial<Globals> {
  json?: boolean;
  quiet?: boolean;
}

/** Options of all commands as they were typed. */
export interface CommandOptions extends Options {
  name?: string;
  exit?: boolean;
  diskOnly?: boolean;
  requireMemory?: boolean;
  wait?: boolean;
  execSessions?: string;
  precopy?: boolean;
  precopyRounds?: string;
  precopyGoal?: string;
  label?: string[];
  pod?: string;
  set?: string;
  snapshot?: string;
  eager?: boolean;
  lazy?: boolean;
  as?: string;
  from?: string;
  count?: string;
  allNamespaces?: boolean;
  all?: boolean;
  bundle?: string;
  dryRun?: boolean;
  daemon?: boolean;
  origin?: boolean;
  yes?: boolean;
  pool?: string;
  restartContainerd?: boolean;
  check?: boolean;
  undo?: boolean;
  keepData?: boolean;
  containerdConfig?: string;
}

/** Adds a command's arguments, options, help and action. */
export type Register = (command: Command, actions: Actions) => Command;

/** The options of a command and the global ones. */
export function optionsOf(command: Command): CommandOptions {
  return command.optsWithGlobals<CommandOptions>();
}

/** The last part of a help page. */
export function examples(...lines: string[]): string {
  return `\nExamples:\n${lines.map((line) => `  ${line}`).join('\n')}`;
}
