import { randomUUID } from 'node:crypto';
import type { GrpcCallOptions } from '../api/grpc-client.ts';
import { AlreadyExists, Code, codeOf } from '../errors.ts';
import { WriteAction, type WriteContentRequest } from '../proto/gen/containerd/content.ts';
import type { Descriptor } from '../proto/gen/containerd/descriptor.ts';
import type { NamespaceClient } from './client.ts';

/** Bytes of one Write message: well below the 16 MiB that containerd takes. */
const CHUNK_BYTES = 1024 * 1024;

/** The bytes of a blob in containerd's content store. @throws NotFound */
export async function* downloadContent(client: NamespaceClient, digest: string): AsyncIterable<Uint8Array> {
  for await (const { data } of client.content.read({ digest, offset: 0n, size: 0n })) yield data;
}

/** Puts a blob into containerd's content store; one that is there already is left as it is. */
export async function uploadContent(
  client: NamespaceClient,
  descriptor: Descriptor,
  source: AsyncIterable<Uint8Array>,
): Promise<void> {
  const ref = `stasis-upload-${randomUUID()}`;
  const request = (part: Partial<WriteContentRequest>): WriteContentRequest => ({
    action: WriteAction.WRITE,
    ref,
    total: descriptor.size,
    expected: descriptor.digest,
    offset: 0n,
    data: Buffer.alloc(0),
    labels: {},
    ...part,
  });
  async function* requests(): AsyncIterable<WriteContentRequest> {
    let offset = 0n;
    for await (const piece of source) {
      for (let at = 0; at < piece.length; at += CHUNK_BYTES) {
        const data = Buffer.from(piece.subarray(at, at + CHUNK_BYTES));
        yield request({ data, offset });
        offset += BigInt(data.length);
      }
    }
    yield request({ action: WriteAction.COMMIT, offset });
  }
  try {
    for await (const _ of client.content.write(requests()));
  } catch (error) {
    if (codeOf(error) !== Code.AlreadyExists && !(error instanceof AlreadyExists)) throw error;
  }
}

/** What is known of a blob when all of it has been written. */
export interface WrittenContent {
  readonly digest: string;
  readonly size: bigint;
  readonly labels: Readonly<Record<string, string>>;
}

/**
 * Writes a blob whose digest is known at its end. One that is there already gets the labels that it lacks.
 * @param name of the writing, so that two do not disturb each other; what is left under it is overwritten. Undefined:
 *   one of our own, of which nothing is left
 * @throws Unavailable where another writes under the same name
 */
export async function writeContent(
  client: NamespaceClient,
  name: string | undefined,
  source: AsyncIterable<Uint8Array>,
  written: () => Promise<WrittenContent>,
  options: GrpcCallOptions = {},
): Promise<WrittenContent> {
  const ref = name ?? `stasis-diff-${randomUUID()}`;
  const blank = { ref, total: 0n, expected: '', offset: 0n, data: Buffer.alloc(0), labels: {} };
  async function* requests(): AsyncIterable<WriteContentRequest> {
    let offset = 0n;
    yield { ...blank, action: WriteAction.WRITE }; // at 0: what was there goes
    for await (const piece of source) {
      for (let at = 0; at < piece.length; at += CHUNK_BYTES) {
        const data = Buffer.from(piece.subarray(at, at + CHUNK_BYTES));
        yield { ...blank, action: WriteAction.WRITE, data, offset };
        offset += BigInt(data.length);
      }
    }
    const { digest: expected, size: total, labels } = await written();
    yield { ...blank, action: WriteAction.COMMIT, offset, total, expected, labels: { ...labels } };
  }
  try {
    for await (const _ of client.content.write(requests(), options));
  } catch (error) {
    if (codeOf(error) !== Code.AlreadyExists) {
      if (name === undefined) await client.content.abort({ ref }, options).catch(() => undefined);
      throw error;
    }
    await addLabels(client, await written(), options);
  }
  return written();
}

async function addLabels(
  client: NamespaceClient,
  content: WrittenContent,
  options: GrpcCallOptions,
): Promise<void> {
  const { info } = await client.content.info({ digest: content.digest }, options);
  if (info === undefined) return;
  const lacking = Object.keys(content.labels).filter((name) => (info.labels[name] ?? '') === '');
  if (lacking.length === 0) return;
  const updateMask = lacking.map((name) => `labels.${name}`);
  await client.content.update(
    { info: { ...info, labels: { ...content.labels, ...info.labels } }, updateMask },
    options,
  );
}
