// Completions for bash, zsh and fish. Names of containers and checkpoints are asked of stasisd while one types.
import { type CommandModel, flatten, type Kind, type OptionModel } from './grammar.ts';

const notice = '# Generated from the command line itself by scripts/reference/main.ts.';

/** Commands that take arguments; those with commands of their own come apart as `config show`. */
function leaves(program: CommandModel): CommandModel[] {
  return flatten(program).filter((command) => command.path.length > 0 && command.commands.length === 0);
}

function groups(program: CommandModel): CommandModel[] {
  return program.commands.filter((command) => command.commands.length > 0);
}

function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

export function bash(program: CommandModel): string {
  const all = flatten(program);
  const takers = unique(all.flatMap(({ options }) => options).filter(({ value }) => value !== undefined));
  const globals = names(program.options);
  const subcommands = (command: CommandModel): string =>
    command.commands.map(({ path }) => path.at(-1)).join(' ');
  const optionCases = all.flatMap(({ path, options }) =>
    options
      .filter(({ value }) => value !== undefined)
      .map((option) => {
        const patterns = option.names.map((name) =>
          quote(`${path.length === 0 ? '' : `${path.join(' ')}:`}${name}`),
        );
        return `    ${patterns.join(' | ')}) ${bashOffer(option.kind, option.choices)}; return ;;`;
      }),
  );
  const global = optionCases
    .filter((line) => /^ {4}'-/.test(line))
    .map((line) => line.replace(/'-/g, "*:'-"));
  const own = optionCases.filter((line) => !/^ {4}'-/.test(line));
  const words = [
    ...[program, ...groups(program)].map(
      (command) =>
        `    ${command.path.length === 0 ? "'' | help" : quote(command.path.join(' '))}) words=${quote(`${subcommands(command)}${command.path.length === 0 ? ' help' : ''}`)} ;;`,
    ),
    ...leaves(program).map(({ path, args, options }) => {
      const kinds = args.map(({ kind, variadic }, index) => {
        const position = variadic ? `[ "\${#args[@]}" -ge ${index} ]` : `[ "\${#args[@]}" = ${index} ]`;
        return kind === 'none' ? '' : ` if ${position}; then ${bashOffer(kind, [])}; fi;`;
      });
      return `    ${quote(path.join(' '))})${kinds.join('')} options=${quote(names(options).join(' '))} ;;`;
    }),
  ];
  return `# bash completion for stasis
${notice}

_stasis_offer() { # WORDS...
  local reply
  while IFS= read -r reply; do COMPREPLY+=("$reply"); done < <(compgen -W "$*" -- "$cur")
}
_stasis_files() {
  local reply
  compopt -o filenames 2>/dev/null
  while IFS= read -r reply; do COMPREPLY+=("$reply"); done < <(compgen -f -- "$cur")
}
_stasis_containers() { _stasis_offer "$(stasis ls --quiet 2>/dev/null)"; }
_stasis_checkpoints() {
  [ -n "\${args[0]-}" ] && _stasis_offer "$(stasis ls --quiet "\${args[0]}" 2>/dev/null | sed 's/.*@//')"
}

_stasis() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD - 1]} command='' skip='' words='' options='' word i
  local args=()
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    if [ -n "$skip" ]; then skip=''; continue; fi
    case $word in
      ${takers.join(' | ')}) skip=1 ;;
      -*) ;;
      *)
        case $command in
          '' | help) command=$word ;;
${groups(program)
  .map(({ path }) => `          ${path.join(' ')}) command="$command $word" ;;`)
  .join('\n')}
          *) args+=("$word") ;;
        esac
        ;;
    esac
  done
  case $command:$prev in
${[...own, ...global].join('\n')}
  esac
  case $command in
${words.join('\n')}
  esac
  [ -z "$words" ] || _stasis_offer "$words"
  case $cur in -*) _stasis_offer "$options ${globals.join(' ')} --help" ;; esac
}
complete -F _stasis stasis
`;
}

function bashOffer(kind: Kind, choices: readonly string[]): string {
  switch (kind) {
    case 'container':
      return '_stasis_containers';
    case 'checkpoint':
      return '_stasis_checkpoints';
    case 'file':
      return '_stasis_files';
    case 'choice':
      return `_stasis_offer ${quote(choices.join(' '))}`;
    case 'none':
      return ':';
  }
}

function names(options: readonly OptionModel[]): string[] {
  return options.flatMap((option) => option.names);
}

function unique(options: readonly OptionModel[]): string[] {
  return [...new Set(names(options))];
}

export function zsh(program: CommandModel): string {
  const globals = program.options.map(zshOption);
  const commandList = (commands: readonly CommandModel[]): string =>
    commands.map(({ path, description }) => quote(`${path.at(-1) ?? ''}:${description}`)).join(' ');
  const branch = ({ path, args, options }: CommandModel, indent: string): string => {
    const specs = [
      ...options.map(zshOption),
      ...args.map(({ name, variadic, kind }, index) =>
        quote(`${variadic ? '*' : String(index + 1)}:${name}:${zshOffer(kind, [])}`),
      ),
    ];
    return `${indent}${path.at(-1) ?? ''}) _arguments $globals ${specs.join(' ')} ;;`;
  };
  const cases = program.commands.map((command) =>
    command.commands.length === 0
      ? branch(command, '    ')
      : `    ${command.path.join(' ')})
      if (( CURRENT == 2 )); then
        local -a commands=(${commandList(command.commands)})
        _describe command commands
      else
        shift words; (( CURRENT-- ))
        case $words[1] in
${command.commands.map((one) => branch(one, '          ')).join('\n')}
        esac
      fi
      ;;`,
  );
  return `#compdef stasis
${notice}

_stasis_containers() { local -a all=(\${(f)"$(stasis ls --quiet 2>/dev/null)"}); compadd -a all }
_stasis_checkpoints() {
  local -a all
  all=(\${(f)"$(stasis ls --quiet \${\${(@)words:#-*}[2]} 2>/dev/null)"})
  all=(\${all#*@})
  compadd -a all
}

_stasis() {
  local -a globals=(${globals.join(' ')} '(-h --help)'{-h,--help}'[show help]')
  local context state state_descr line
  typeset -A opt_args
  _arguments -C $globals '1:command:->command' '*::argument:->argument' && return
  case $state in
  command)
    local -a commands=(${commandList(program.commands)} 'help:Show help')
    _describe command commands
    ;;
  argument)
    case $words[1] in
${cases.join('\n')}
    esac
    ;;
  esac
}
_stasis "$@"
`;
}

function zshOption({ names: all, description, value, kind, choices }: OptionModel): string {
  const text = description.replace(/[[\]:]/g, (char) => `\\${char}`);
  const argument = value === undefined ? '' : `:${value}:${zshOffer(kind, choices)}`;
  const spec = quote(`[${text}]${argument}`);
  return all.length === 1
    ? `${quote(all[0] ?? '')}${spec}`
    : `${quote(`(${all.join(' ')})`)}{${all.join(',')}}${spec}`;
}

function zshOffer(kind: Kind, choices: readonly string[]): string {
  switch (kind) {
    case 'container':
      return '_stasis_containers';
    case 'checkpoint':
      return '_stasis_checkpoints';
    case 'file':
      return '_files';
    case 'choice':
      return `(${choices.join(' ')})`;
    case 'none':
      return ' ';
  }
}

export function fish(program: CommandModel): string {
  const lines = [
    '# fish completion for stasis',
    notice,
    '',
    'function __stasis_containers; stasis ls --quiet 2>/dev/null; end',
    'function __stasis_words; string match --invert -- "-*" (commandline -opc); end',
    'function __stasis_checkpoints',
    '  set -l words (__stasis_words)',
    '  test (count $words) -ge 3; and stasis ls --quiet $words[3] 2>/dev/null | string replace -r ".*@" ""',
    'end',
    'function __stasis_in # COMMAND...',
    '  set -l words (__stasis_words)',
    '  set -l last (math (count $argv) + 1)',
    '  test (count $words) -gt (count $argv); and test "$words[2..$last]" = "$argv"',
    'end',
    'function __stasis_argument # NUMBER',
    '  test (count (__stasis_words)) -eq (math $argv[1] + 2)',
    'end',
    'complete -c stasis -f',
    ...program.options.map((option) => fishOption(option, '')),
    ...program.commands.map(
      ({ path, description }) =>
        `complete -c stasis -n __fish_use_subcommand -a ${path.join(' ')} -d ${fishQuote(description)}`,
    ),
  ];
  for (const group of groups(program)) {
    const subs = group.commands.map(({ path }) => path.at(-1) ?? '');
    for (const { path, description } of group.commands) {
      const condition = `__stasis_in ${group.path.join(' ')}; and not __fish_seen_subcommand_from ${subs.join(' ')}`;
      lines.push(
        `complete -c stasis -n ${fishQuote(condition)} -a ${path.at(-1) ?? ''} -d ${fishQuote(description)}`,
      );
    }
  }
  for (const { path, args, options } of leaves(program)) {
    const condition = `__stasis_in ${path.join(' ')}`;
    for (const [index, { kind, variadic }] of args.entries()) {
      const offer = fishOffer(kind, []);
      if (offer === '') continue;
      const position = variadic ? '' : `; and __stasis_argument ${index + path.length - 1}`;
      lines.push(`complete -c stasis -n ${fishQuote(condition + position)} ${offer}`);
    }
    for (const option of options) lines.push(fishOption(option, condition));
  }
  return `${lines.join('\n')}\n`;
}

function fishOption(
  { names: all, description, value, kind, choices }: OptionModel,
  condition: string,
): string {
  const flags = all.map((name) => (name.startsWith('--') ? `-l ${name.slice(2)}` : `-s ${name.slice(1)}`));
  const when = condition === '' ? '' : ` -n ${fishQuote(condition)}`;
  const argument = value === undefined ? '' : ` -r ${fishOffer(kind, choices)}`.trimEnd();
  return `complete -c stasis${when} ${flags.join(' ')}${argument} -d ${fishQuote(description)}`;
}

function fishOffer(kind: Kind, choices: readonly string[]): string {
  switch (kind) {
    case 'container':
      return "-a '(__stasis_containers)'";
    case 'checkpoint':
      return "-a '(__stasis_checkpoints)'";
    case 'file':
      return '-F';
    case 'choice':
      return `-a ${fishQuote(choices.join(' '))}`;
    case 'none':
      return '';
  }
}

function fishQuote(text: string): string {
  return `'${text.replace(/[\\']/g, (char) => `\\${char}`)}'`;
}
