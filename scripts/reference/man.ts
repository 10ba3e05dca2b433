// The man pages: stasis(1), one for each command, stasis.toml(5); stasisd(8) and the shim's (8) are in packaging/man.
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { eachKey, sections } from '../../src/config/schema.ts';
import { type CommandModel, type OptionModel, usage } from './grammar.ts';

const root = join(import.meta.dirname, '../..');
const written = join(root, 'packaging/man');

/** Texts by file name. The date is the commit's, so that the same commit makes the same pages. */
export function manPages(program: CommandModel): Map<string, string> {
  const pages = new Map<string, string>();
  pages.set('stasis.1', programPage(program));
  for (const command of program.commands) {
    pages.set(`stasis-${command.path.join('-')}.1`, commandPage(command, program));
  }
  pages.set('stasis.toml.5', configurationPage());
  for (const name of readdirSync(written)) {
    const [title = '', section = ''] = name.split(/\.(?=\d$)/);
    pages.set(name, header(title, section) + readFileSync(join(written, name), 'utf8'));
  }
  return pages;
}

function header(title: string, section: string): string {
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
  return `.TH "${roff(title.toUpperCase())}" ${section} "${date()}" "Stasis ${version}" "Stasis"\n`;
}

/** Of SOURCE_DATE_EPOCH, else of the commit; of the sources' files where there is no git, or no repository. */
function date(): string {
  const epoch = process.env['SOURCE_DATE_EPOCH'] ?? commitTime();
  const at =
    epoch === undefined ? statSync(join(root, 'package.json')).mtime : new Date(Number(epoch) * 1000);
  return at.toISOString().slice(0, 10);
}

function commitTime(): string | undefined {
  try {
    return execFileSync('git', ['-C', root, 'log', '-1', '--format=%ct'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  } catch {
    return undefined;
  }
}

function programPage(program: CommandModel): string {
  return [
    header('stasis', '1'),
    section('NAME', `stasis \\- ${roff(lower(program.description))}`),
    section('SYNOPSIS', '.B stasis\n[\\fIoptions\\fR] \\fIcommand\\fR [\\fIarguments\\fR]'),
    section(
      'DESCRIPTION',
      roff(
        'stasis is the command line of Stasis: checkpoints of running containers, memory and disk of one instant, to go back to or to clone. It is a client of stasisd(8), which has to run.',
      ),
    ),
    section(
      'COMMANDS',
      program.commands
        .map((one) =>
          item(
            bold(one.path.join(' ')),
            `${roff(one.description)}. See ${bold(`stasis-${one.path.join('-')}`)}(1).`,
          ),
        )
        .join('\n'),
    ),
    section('OPTIONS', options(program.options)),
    section('EXIT STATUS', exitCodes()),
    section('ENVIRONMENT', environment()),
    section(
      'FILES',
      [
        item('/etc/stasis/config.toml', 'Configuration; see \\fBstasis.toml\\fR(5).'),
        item('/run/stasis/stasisd.sock', roff('The socket of stasisd(8), mode 0600.')),
      ].join('\n'),
    ),
    section('EXAMPLES', examples(program.examples)),
    section(
      'SEE ALSO',
      `${program.commands.map((one) => `${bold(`stasis-${one.path.join('-')}`)}(1)`).join(',\n')},\n\\fBstasis.toml\\fR(5),\n\\fBstasisd\\fR(8),\n\\fBcontainerd\\-shim\\-stasis\\-v2\\fR(8)`,
    ),
  ].join('');
}

function commandPage(command: CommandModel, program: CommandModel): string {
  const name = `stasis-${command.path.join('-')}`;
  const leaves = command.commands.length > 0 ? command.commands : [command];
  return [
    header(name, '1'),
    section('NAME', `${roff(name)} \\- ${roff(lower(command.description))}`),
    section('SYNOPSIS', leaves.map((one) => bold(usage(one))).join('\n.br\n')),
    section('DESCRIPTION', `${roff(command.description)}.`),
    ...(leaves[0] === command
      ? []
      : [
          section(
            'COMMANDS',
            leaves
              .map((one) =>
                item(
                  bold(one.path.join(' ')),
                  `${roff(one.description)}.${one.options.length > 0 ? `\n.RS\n${options(one.options)}\n.RE` : ''}`,
                ),
              )
              .join('\n'),
          ),
        ]),
    ...(leaves[0] === command && command.options.length > 0
      ? [section('OPTIONS', options(command.options))]
      : []),
    section('GLOBAL OPTIONS', options(program.options)),
    section('EXAMPLES', examples(leaves.flatMap((one) => one.examples))),
    section('SEE ALSO', '\\fBstasis\\fR(1), \\fBstasis.toml\\fR(5), \\fBstasisd\\fR(8)'),
  ].join('');
}

function configurationPage(): string {
  const keys = [...sections].map(([name, { what }]) => {
    const own = eachKey().filter(({ section: of }) => of === name);
    const lines = own.map(({ path, key }) => {
      const empty = key.type === 'string' && key.empty !== undefined ? `, which means ${key.empty}` : '';
      const rule =
        key.type === 'choice'
          ? ` One of ${key.choices.join(', ')}.`
          : key.type === 'number'
            ? ` In ${key.unit}, from ${key.min} to ${key.max}.`
            : '';
      const text = `${key.what}${rule} Default: ${JSON.stringify(key.default)}${empty}.`;
      return item(bold(path), roff(text.replaceAll('`', '')));
    });
    return section(name.toUpperCase(), `${roff(what)}\n${lines.join('\n')}`);
  });
  return [
    header('stasis.toml', '5'),
    section('NAME', 'stasis.toml \\- configuration of Stasis'),
    section('SYNOPSIS', '.I /etc/stasis/config.toml'),
    section(
      'DESCRIPTION',
      roff(
        'A TOML file. Every key has a default that works; unknown keys and wrong values are errors that name the line. `stasis config check` shows all of them, `stasis config show --origin` what is in force and where it comes from. The variable STASIS_CONFIG names another file.',
      ),
    ),
    ...keys,
    section('SEE ALSO', '\\fBstasis\\-config\\fR(1), \\fBstasisd\\fR(8)'),
  ].join('');
}

function options(all: readonly OptionModel[]): string {
  return all
    .map(({ flags, description, choices }) =>
      item(bold(flags), roff(`${description}${choices.length > 0 ? ` (${choices.join(', ')})` : ''}.`)),
    )
    .join('\n');
}

/** From the table of docs/exit-codes.md. */
function exitCodes(): string {
  const page = readFileSync(join(root, 'docs/exit-codes.md'), 'utf8');
  return [...page.matchAll(/^\| (\d+) +\| ([^|]+?) +\| ([^|]+?) +\|$/gm)]
    .map(([, code = '', name = '', when = '']) =>
      item(bold(code), roff(`${name}: ${when.replaceAll('`', '')}`)),
    )
    .join('\n');
}

function environment(): string {
  const known: [string, string][] = [
    ['CONTAINERD_NAMESPACE', 'The containerd namespace, where --namespace is not given.'],
    ['CONTAINERD_ADDRESS', "containerd's socket, where --address is not given."],
    ['STASIS_ADDRESS', "stasisd's socket, where --socket is not given."],
    ['STASIS_CONFIG', 'The configuration file.'],
  ];
  return known.map(([name, what]) => item(bold(name), roff(what))).join('\n');
}

function examples(lines: readonly string[]): string {
  return `.nf\n${lines.map(roff).join('\n')}\n.fi`;
}

function section(title: string, body: string): string {
  return `.SH ${title.includes(' ') ? `"${title}"` : title}\n${body}\n`;
}

function item(term: string, body: string): string {
  return `.TP\n${term}\n${body}`;
}

function bold(text: string): string {
  return `\\fB${roff(text)}\\fR`;
}

function lower(text: string): string {
  return text.slice(0, 1).toLowerCase() + text.slice(1).replace(/\.$/, '');
}

/** Text as roff: nothing in it is a request or an escape, and hyphens are those that one can copy. */
function roff(text: string): string {
  return text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replace(/^([.'])/gm, '\\&$1');
}
