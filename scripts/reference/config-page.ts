// docs/reference/configuration.md, and the file that the package installs as /etc/stasis/config.toml.
import { type Effect, eachKey, type Key, sections } from '../../src/config/schema.ts';

const effects: Readonly<Record<Effect, string>> = {
  restart: 'after `systemctl restart stasisd`',
  reload: 'after `systemctl reload stasisd`; for shims, when one starts',
  shim: 'for shims that start afterwards',
  both: 'after `systemctl restart stasisd`, and for shims that start afterwards',
};

export function configPage(): string {
  const intro = `# Configuration reference

\`/etc/stasis/config.toml\`, or the file that \`STASIS_CONFIG\` names, in TOML. Every key has a default that works, and a
missing file means all defaults. Unknown keys and wrong values are errors that name the line. \`stasis config check\` shows all
of them, \`stasis config show --origin\` what is in force and where it comes from. [Configuration](../configuration.md) says what
else has to be set up.
`;
  const parts = [...sections].map(
    ([name, { what, keys }]) =>
      `## [${name}]\n\n${what}\n\n${Object.entries(keys)
        .map(([key, one]) => entry(`${name}.${key}`, one))
        .join('\n')}`,
  );
  return [intro, ...parts].join('\n');
}

function entry(path: string, key: Key): string {
  return [
    `### ${path}\n`,
    `${key.what}\n`,
    `- ${rule(key)}`,
    `- default: \`${JSON.stringify(key.default)}\`${emptyMeaning(key)}`,
    `- a change counts ${effects[key.effect]}\n`,
  ].join('\n');
}

function emptyMeaning(key: Key): string {
  return key.type === 'string' && key.empty !== undefined ? `, which means ${key.empty}` : '';
}

function rule(key: Key): string {
  switch (key.type) {
    case 'choice':
      return `one of ${key.choices.map((one) => `\`"${one}"\``).join(', ')}`;
    case 'number':
      return `${key.fraction === true ? 'number' : 'whole number'} of ${key.unit}, ${key.min} to ${key.max}`;
    case 'string':
      if (key.dataset === true) return "string, a dataset's name";
      return key.absolute === true ? 'string, an absolute path' : 'string';
  }
}

/** Every key, commented out, with its default: a file that changes nothing until it is edited. */
export function configFile(): string {
  const head = [
    '# Stasis. Every key is shown with its default; remove the # to change it.',
    '# See stasis.toml(5), `stasis config check` and `stasis config show --origin`.',
  ];
  const parts = [...sections].map(([name, { what }]) => {
    const keys = eachKey().filter(({ section }) => section === name);
    return [
      '',
      `# ${what}`,
      `[${name}]`,
      ...keys.flatMap(({ name: key, key: one }) => [
        ...comment(
          `${one.what}${one.type === 'string' && one.empty !== undefined ? ` Empty: ${one.empty}.` : ''}`,
        ),
        `#${key} = ${JSON.stringify(one.default)}`,
      ]),
    ];
  });
  return `${[...head, ...parts.flat()].join('\n')}\n`;
}

/** Wrapped at 78 columns. */
function comment(text: string): string[] {
  const lines = [''];
  for (const word of text.replaceAll('`', '').split(' ')) {
    const last = lines.at(-1) ?? '';
    if (last.length + word.length > 75) lines.push(word);
    else lines[lines.length - 1] = last === '' ? word : `${last} ${word}`;
  }
  return lines.map((line) => `# ${line}`);
}
