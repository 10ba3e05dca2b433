import { randomUUID } from 'node:crypto';
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
