// docs/reference/api.md, from the .proto file by way of buf's descriptors, which hold the comments.
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { cell, table } from './markdown.ts';

const root = join(import.meta.dirname, '../..');
const FILE = 'stasis/stasis.proto';

interface Field {
  name: string;
  number: number;
  label?: string;
  type: string;
  typeName?: string;
  oneofIndex?: number;
  proto3Optional?: boolean;
}
interface Message {
  name: string;
  field?: Field[];
  oneofDecl?: { name: string }[];
  nestedType?: (Message & { options?: { mapEntry?: boolean } })[];
}
interface Enum {
  name: string;
  value: { name: string; number?: number }[];
}
interface Method {
  name: string;
  inputType: string;
  outputType: string;
  serverStreaming?: boolean;
}
interface File {
  name: string;
  package: string;
  messageType: Message[];
  enumType?: Enum[];
  service: { name: string; method: Method[] }[];
  sourceCodeInfo: { location: { path?: number[]; leadingComments?: string; trailingComments?: string }[] };
}

/** Numbers of descriptor.proto's own fields, which source paths are made of. */
const at = { syntax: 12, message: 4, enum: 5, service: 6, member: 2 } as const;

export function apiPage(): string {
  const file = descriptor();
  const comments = new Map(
    file.sourceCodeInfo.location.map(({ path = [], leadingComments, trailingComments }) => [
      path.join('.'),
      (leadingComments ?? trailingComments ?? '').replace(/^ /gm, '').trim(),
    ]),
  );
  const said = (...path: number[]): string => comments.get(path.join('.')) ?? '';
  const parts = [
    '# API reference\n',
    `gRPC, package \`${file.package}\`, on the unix socket \`/run/stasis/stasisd.sock\` (mode 0600). The source is`,
    `[stasis.proto](../../src/proto/${FILE}).\n`,
    `${said(at.syntax)}\n`,
  ];
  for (const [index, service] of file.service.entries()) {
    parts.push(`## Calls of ${service.name}\n`);
    parts.push(
      table(
        ['call', 'request', 'answer', 'what'],
        service.method.map((method, number) => [
          `\`${method.name}\``,
          link(method.inputType),
          `${method.serverStreaming === true ? 'stream of ' : ''}${link(method.outputType)}`,
          cell(line(said(at.service, index, at.member, number))),
        ]),
      ),
    );
  }
  parts.push('## Messages\n');
  for (const [index, message] of file.messageType.entries()) {
    parts.push(`### ${message.name}\n`);
    const about = said(at.message, index);
    if (about !== '') parts.push(`${about}\n`);
    const rows = (message.field ?? []).map((field, number) => [
      String(field.number),
      `\`${field.name}\``,
      typeOf(field, message),
      cell(
        line([oneof(field, message), said(at.message, index, at.member, number)].filter(Boolean).join('. ')),
      ),
    ]);
    parts.push(rows.length === 0 ? 'No fields.\n' : table(['number', 'field', 'type', 'what'], rows));
  }
  parts.push('## Enumerations\n');
  for (const [index, { name, value }] of (file.enumType ?? []).entries()) {
    parts.push(`### ${name}\n`);
    const rows = value.map((one, number) => [
      String(one.number ?? 0),
      `\`${one.name}\``,
      cell(line(said(at.enum, index, at.member, number))),
    ]);
    parts.push(table(['number', 'name', 'what'], rows));
  }
  return parts.join('\n');
}

function descriptor(): File {
  const text = execFileSync(
    process.execPath,
    [
      join(root, 'node_modules/@bufbuild/buf/bin/buf'),
      'build',
      join(root, 'src/proto'),
      '--path',
      join(root, 'src/proto', FILE),
      '--output',
      '-#format=json',
    ],
    { encoding: 'utf8', maxBuffer: 1 << 26 },
  );
  const file = (JSON.parse(text) as { file: File[] }).file.find(({ name }) => name === FILE);
  if (file === undefined) throw new Error(`buf has no ${FILE}`);
  return file;
}

function line(text: string): string {
  return text.replace(/\s*\n\s*/g, ' ');
}

function oneof(field: Field, message: Message): string {
  const name = field.oneofIndex === undefined ? undefined : message.oneofDecl?.[field.oneofIndex]?.name;
  return name === undefined || field.proto3Optional === true ? '' : `one of \`${name}\``;
}

function typeOf(field: Field, message: Message): string {
  const entry = message.nestedType?.find(
    ({ name, options }) => options?.mapEntry === true && field.typeName?.endsWith(`.${name}`),
  );
  if (entry?.field !== undefined)
    return `map of ${entry.field.map((part) => typeOf(part, entry)).join(' to ')}`;
  const name =
    field.typeName === undefined ? field.type.replace('TYPE_', '').toLowerCase() : link(field.typeName);
  return field.label === 'LABEL_REPEATED' ? `list of ${name}` : name;
}

function link(typeName: string): string {
  const name = typeName.split('.').at(-1) ?? typeName;
  return typeName.startsWith('.stasis.v1.')
    ? `[${name}](#${name.toLowerCase()})`
    : `\`${typeName.slice(1)}\``;
}
