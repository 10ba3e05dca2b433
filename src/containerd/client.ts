import { GrpcChannel, type GrpcClient } from '../api/grpc-client.ts';
import { StasisError, Code, codeOf, Unavailable } from '../errors.ts';
import { type Container, ContainersDefinition } from '../proto/gen/containerd/containers.ts';
import { ContentDefinition } from '../proto/gen/containerd/content.ts';
import { DiffDefinition } from '../proto/gen/containerd/diff.ts';
import { IntrospectionDefinition } from '../proto/gen/containerd/host.ts';
import { ImagesDefinition } from '../proto/gen/containerd/images.ts';
import { LeasesDefinition } from '../proto/gen/containerd/leases.ts';
import { NamespacesDefinition } from '../proto/gen/containerd/namespaces.ts';
import { SnapshotsDefinition } from '../proto/gen/containerd/snapshots.ts';
import { type Process, Status } from '../proto/gen/containerd/task_types.ts';
import { TasksDefinition } from '../proto/gen/containerd/tasks.ts';
import { VersionDefinition } from '../proto/gen/containerd/version.ts';

/** Metadata keys that containerd reads its namespace and lease from. */
const namespaceHeader = 'containerd-namespace';
const leaseHeader = 'containerd-lease';

/** containerd's public API in one namespace. */
export interface NamespaceClient {
  readonly namespace: string;
  readonly containers: GrpcClient<typeof ContainersDefinition>;
  readonly tasks: GrpcClient<typeof TasksDefinition>;
  readonly snapshots: GrpcClient<typeof SnapshotsDefinition>;
  readonly images: GrpcClient<typeof ImagesDefinition>;
  readonly content: GrpcClient<typeof ContentDefinition>;
  readonly diff: GrpcClient<typeof DiffDefinition>;
  readonly leases: GrpcClient<typeof LeasesDefinition>;
}

/** The containerd that this stasisd serves. Connections are made when first used. */
export class Containerd {
  readonly address: string;
  readonly #channels = new Map<string, GrpcChannel>();
  #uuid: string | undefined;

  constructor(address: string) {
    this.address = address;
  }

  /** The API in a namespace; with a lease, what is made through it is kept from garbage collection. */
  namespace(namespace: string, lease?: string): NamespaceClient {
    const channel = this.#channel(namespace, lease);
    return {
      namespace,
      containers: channel.service(ContainersDefinition),
      tasks: channel.service(TasksDefinition),
      snapshots: channel.service(SnapshotsDefinition),
      images: channel.service(ImagesDefinition),
      content: channel.service(ContentDefinition),
      diff: channel.service(DiffDefinition),
      leases: channel.service(LeasesDefinition),
    };
  }

  /** Runs `use` with a lease that ends with it, or by itself after an hour if this process dies. */
  async withLease<T>(namespace: string, use: (client: NamespaceClient) => Promise<T>): Promise<T> {
    const plain = this.namespace(namespace);
    const expires = new Date(Date.now() + 3600_000).toISOString();
    const id = `stasis-${process.pid}-${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 8)}`;
    await plain.leases.create({ id, labels: { 'containerd.io/gc.expire': expires } });
    try {
      return await use(this.namespace(namespace, id));
    } finally {
      this.#close(channelKey(namespace, id));
      await plain.leases.delete({ id, sync: false }).catch(() => undefined); // it expires by itself
    }
  }

  /** UUID by which datasets are owned. Remembered after the first answer. */
  async uuid(signal?: AbortSignal): Promise<string> {
    if (this.#uuid === undefined) {
      const server = await this.#channel('default')
        .service(IntrospectionDefinition)
        .server({}, { signal, timeoutMs: 5000 });
      this.#uuid = server.uuid;
    }
    return this.#uuid;
  }

  /** Another containerd may be there now, started with an empty root say: to it nothing of the former one's is listed. */
  forgetUuid(): void {
    this.#uuid = undefined;
  }

  async version(): Promise<string> {
    const answer = await this.#channel('default').service(VersionDefinition).version({}, { timeoutMs: 5000 });
    return answer.version;
  }

  async plugins(filters: string[]) {
    const answer = await this.#channel('default')
      .service(IntrospectionDefinition)
      .plugins({ filters }, { timeoutMs: 5000 });
    return answer.plugins;
  }

  async namespaces(): Promise<string[]> {
    const answer = await this.#channel('default')
      .service(NamespacesDefinition)
      .list({ filter: '' }, { timeoutMs: 5000 });
    return answer.namespaces.map((namespace) => namespace.name);
  }

  /** Removes an empty namespace. @throws NotFound, FailedPrecondition where something is in it */
  async removeNamespace(name: string): Promise<void> {
    await this.#channel('default').service(NamespacesDefinition).delete({ name }, { timeoutMs: 5000 });
  }

  close(): void {
    for (const key of [...this.#channels.keys()]) this.#close(key);
  }

  #channel(namespace: string, lease?: string): GrpcChannel {
    const key = channelKey(namespace, lease);
    let channel = this.#channels.get(key);
    if (channel === undefined) {
      const metadata = {
        [namespaceHeader]: namespace,
        ...(lease === undefined ? {} : { [leaseHeader]: lease }),
      };
      channel = new GrpcChannel(this.address, metadata, (error) => explainAway(error, this.address));
      this.#channels.set(key, channel);
    }
    return channel;
  }

  #close(key: string): void {
    this.#channels.get(key)?.close();
    this.#channels.delete(key);
  }
}

function channelKey(namespace: string, lease?: string): string {
  return lease === undefined ? namespace : `${namespace}\0${lease}`;
}

/** A container's record, or undefined where containerd has none of that name. */
export async function findContainer(client: NamespaceClient, id: string): Promise<Container | undefined> {
  const answer = await orNotFound(client.containers.get({ id }));
  return answer?.container;
}

/**
 * A container's task, or undefined where it has none.
 * @throws Unavailable where its shim does not answer: containerd calls its status unknown, or hands on that its time is over
 */
export async function findTask(client: NamespaceClient, id: string): Promise<Process | undefined> {
  const answer = await orNotFound(client.tasks.get({ containerId: id, execId: '' })).catch(
    (error: unknown) => {
      throw codeOf(error) === Code.DeadlineExceeded ? silentShim(id) : error;
    },
  );
  if (answer?.process?.status === Status.UNKNOWN) throw silentShim(id);
  return answer?.process;
}

const silent = 'shim-silent';

/**
 * The error for a task of which containerd says that its status is unknown: it has asked the shim for two seconds.
 * @param why what the shim's guard says of it
 */
export function silentShim(id: string, why?: string): Unavailable {
  return new Unavailable(
    `the shim of container ${id} does not answer${why === undefined ? '' : `: ${why}`}`,
    {
      subject: id,
      reason: silent,
      remedy:
        why === undefined
          ? 'see its process (stasis shim ls) and its log; to kill it ends its containers too, unless shim.guard is on'
          : 'mend that: its containers run on, and the guard tries again every few seconds (see stasis shim ls)',
    },
  );
}

export function isShimSilent(error: unknown): boolean {
  return error instanceof StasisError && error.reason === silent;
}

async function orNotFound<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof StasisError && error.code === Code.NotFound) return undefined;
    throw error;
  }
}

const away = 'containerd-unavailable';

/** Whether containerd was not there, or went away during the call. */
export function isContainerdAway(error: unknown): boolean {
  return error instanceof StasisError && error.reason === away;
}

// grpc-js's texts, in subchannel-call.ts and picker.ts.
const lostCall = /^(Connection dropped|Stream refused|Write failed)|E(CONNRESET|PIPE)\b/;
const noConnection = /^(No connection established|Subchannel not ready)/;

/** containerd not answering, in words that say what to do instead of grpc-js's. */
function explainAway(error: StasisError, address: string): StasisError {
  // Another text is containerd's own answer, about a plugin that it cannot reach.
  const lost = lostCall.test(error.message);
  if (error.code !== Code.Unavailable || !(lost || noConnection.test(error.message))) return error;
  const [, why] = /Last error: (?:Error: )?(.*?)[.:\s]*(?:Resolution note|$)/s.exec(error.message) ?? [];
  return new Unavailable(lost ? 'containerd went away during the call' : 'containerd does not answer', {
    subject: address,
    cause: new Error(lost ? `the connection to ${address} was lost` : why || error.message),
    reason: away,
    remedy: 'start containerd, and check [containerd] address in the configuration',
  });
}
