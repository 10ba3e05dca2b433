import { createReadStream, readFileSync, statSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';

interface Descriptor {
  readonly digest: string;
  readonly mediaType: string;
}

/** A registry on this host with one image, of which nothing can be pushed: the part of OCI's distribution specification that a pull asks for. */
export class Registry {
  /** Settles when the blob that is held is asked for. */
  readonly asked: Promise<void>;
  readonly #folder: string;
  readonly #server: Server;
  readonly #manifest: Descriptor;
  readonly #held: string;
  #ask: () => void = () => undefined;
  #give: () => void = () => undefined;
  readonly #given: Promise<void>;

  private constructor(folder: string) {
    this.#folder = folder;
    this.#manifest = this.#read<{ manifests: Descriptor[] }>('index.json').manifests[0] ?? missing();
    const { layers } = this.#read<{ layers: Descriptor[] }>(this.#pathOf(this.#manifest.digest));
    this.#held = layers.at(-1)?.digest ?? missing();
    this.asked = new Promise((resolve) => (this.#ask = resolve));
    this.#given = new Promise((resolve) => (this.#give = resolve));
    this.#server = createServer((request, response) => {
      const [, kind = '', name = ''] = /\/(manifests|blobs)\/([^/]+)$/.exec(request.url ?? '') ?? [];
      const digest = kind === 'manifests' && !name.startsWith('sha256:') ? this.#manifest.digest : name;
      void this.#answer(kind, digest).then((path) => {
        if (path === undefined) {
          response.writeHead(kind === '' ? 200 : 404).end(); // whether there is such a registry
          return;
        }
        response.writeHead(200, {
          'content-type': kind === 'manifests' ? this.#manifest.mediaType : 'application/octet-stream',
          'content-length': statSync(path).size,
          'docker-content-digest': digest,
        });
        if (request.method === 'HEAD') response.end();
        else createReadStream(path).pipe(response);
      });
    });
  }

  /** @param folder an image as OCI lays it out; its last layer is held until `give` */
  static async start(folder: string): Promise<Registry> {
    const registry = new Registry(folder);
    await new Promise<void>((resolve) => registry.#server.listen(0, '127.0.0.1', resolve));
    return registry;
  }

  /** What an image is called here. */
  name(image: string): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}/${image}`;
  }

  give(): void {
    this.#give();
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }

  async #answer(kind: string, digest: string): Promise<string | undefined> {
    if (kind === '') return undefined;
    if (digest === this.#held) {
      this.#ask();
      await this.#given;
    }
    const path = join(this.#folder, this.#pathOf(digest));
    return statSync(path, { throwIfNoEntry: false }) === undefined ? undefined : path;
  }

  #read<T>(path: string): T {
    return JSON.parse(readFileSync(join(this.#folder, path), 'utf8')) as T;
  }

  #pathOf(digest: string): string {
    return join('blobs', digest.replace(':', '/'));
  }
}

function missing(): never {
  throw new Error('that is no image with a layer');
}
