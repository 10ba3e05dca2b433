import { once } from 'node:events';
import { createZstdDecompress, type ZstdDecompress } from 'node:zlib';

/**
 * Uncompresses zstd data of any number of frames, skippable ones included. Node's own stream ends with the first
 * frame and drops what follows without a word, while layers come in many (zstd:chunked has one a file): so each frame
 * that leaves input behind is followed by a stream of its own.
 */
export async function decompressFrames(
  source: AsyncIterable<Uint8Array>,
  take: (bytes: Buffer) => void,
  chunkSize: number,
): Promise<void> {
  let frame: Frame | undefined;
  try {
    for await (const chunk of source) {
      for (let at = 0; at < chunk.length;) {
        frame ??= new Frame(take, chunkSize);
        const used = await frame.write(chunk.subarray(at));
        at += used;
        if (at < chunk.length) {
          frame.close();
          frame = undefined;
        }
      }
    }
    await frame?.finish();
  } finally {
    frame?.close();
  }
}

class Frame {
  readonly #stream: ZstdDecompress;
  readonly #ended: Promise<unknown>;
  #failed: Error | undefined;

  constructor(take: (bytes: Buffer) => void, chunkSize: number) {
    this.#stream = createZstdDecompress({ chunkSize });
    this.#stream.on('data', (bytes: Buffer) => {
      try {
        take(bytes);
      } catch (error) {
        this.#failed = error instanceof Error ? error : new Error(String(error));
      }
    });
    this.#ended = once(this.#stream, 'end');
    this.#ended.catch(() => undefined); // whoever waits for it hears of the error
  }

  /** Answers how many of the bytes belong to this frame, or to ones that begin where it ends. */
  async write(bytes: Uint8Array): Promise<number> {
    const before = this.#stream.bytesWritten;
    const taken = new Promise<void>((resolve, reject) => {
      this.#stream.write(bytes, (error) => (error ? reject(error) : resolve()));
    });
    taken.catch(() => undefined);
    await Promise.race([taken, this.#ended]);
    if (this.#failed !== undefined) throw this.#failed;
    return this.#stream.bytesWritten - before;
  }

  /** @throws where the frame is cut off */
  async finish(): Promise<void> {
    this.#stream.end();
    await this.#ended;
    if (this.#failed !== undefined) throw this.#failed;
  }

  close(): void {
    this.#stream.destroy();
  }
}
