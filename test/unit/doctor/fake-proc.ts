import type { ContainerFacts } from '../../../src/doctor/container-view.ts';
import type { FileFacts, Proc } from '../../../src/doctor/proc.ts';

/** A made-up process. */
export interface FakeProcess {
  readonly pid: number;
  readonly parent?: number;
  readonly inner?: readonly number[];
  readonly tracer?: number;
  /** Target of each descriptor. */
  readonly descriptors?: Readonly<Record<number, string>>;
  /** Target of descriptors that stand for another file a moment after they were listed, as `details` say. */
  readonly later?: Readonly<Record<number, string>>;
  /** What /proc/PID/fdinfo says. */
  readonly details?: Readonly<Record<number, string>>;
  readonly files?: Readonly<Record<number, FileFacts>>;
  readonly protocols?: Readonly<Record<number, string>>;
  /** Further files below /proc/PID. */
  readonly texts?: Readonly<Record<string, string>>;
  /** What is at each address. */
  readonly memory?: ReadonlyMap<bigint, Buffer>;
  readonly namespaces?: Readonly<Record<string, string>>;
}

export const mountinfo = [
  '10 1 0:50 / / rw - fuse tank/web rw',
  '11 10 0:51 / /dev rw - tmpfs tmpfs rw',
  '12 10 0:52 / /run rw - tmpfs tmpfs rw',
].join('\n');

/** A /proc with these processes and nothing else. */
export function fakeProc(processes: readonly FakeProcess[]): Proc {
  const texts = new Map<string, string>();
  const links = new Map<string, string>();
  const lists = new Map<string, string[]>([['/proc', processes.map(({ pid }) => String(pid))]]);
  const files = new Map<string, FileFacts>();
  const protocols = new Map<string, string>();
  const opened = new Map<string, string>();
  for (const one of processes) {
    const folder = `/proc/${one.pid}`;
    const pids = [one.pid, ...(one.inner ?? [one.pid - 99])].join('\t');
    texts.set(
      `${folder}/status`,
      `Name:\tp${one.pid}\nPPid:\t${one.parent ?? 1}\nTracerPid:\t${one.tracer ?? 0}\nNSpid:\t${pids}\n`,
    );
    texts.set(`${folder}/mountinfo`, mountinfo);
    for (const [name, text] of Object.entries(one.texts ?? {})) texts.set(`${folder}/${name}`, text);
    for (const [name, link] of Object.entries(one.namespaces ?? {})) links.set(`${folder}/ns/${name}`, link);
    lists.set(`${folder}/fd`, Object.keys(one.descriptors ?? {}));
    for (const [number, target] of Object.entries(one.descriptors ?? {})) {
      const path = `${folder}/fd/${number}`;
      links.set(path, target);
      texts.set(`${folder}/fdinfo/${number}`, one.details?.[Number(number)] ?? 'flags:\t02\nmnt_id:\t10\n');
      const now = one.later?.[Number(number)];
      if (now !== undefined) opened.set(path, now);
      const facts = one.files?.[Number(number)];
      if (facts !== undefined) files.set(path, facts);
      const protocol = one.protocols?.[Number(number)];
      if (protocol !== undefined) protocols.set(path, protocol);
    }
  }
  return {
    memory: (pid, address) => processes.find((one) => one.pid === pid)?.memory?.get(address),
    read: (path) => texts.get(path) ?? '',
    link: (path) => links.get(path) ?? '',
    list: (path) => lists.get(path) ?? [],
    stat: (path) => files.get(path),
    opened: (path) => {
      const target = opened.get(path) ?? links.get(path);
      const mount = /^mnt_id:\t(\d+)/m.exec(texts.get(path.replace('/fd/', '/fdinfo/')) ?? '')?.[1] ?? '';
      return target === undefined ? undefined : { target, mount };
    },
    socketProtocol: (path) => protocols.get(path),
  };
}

/** A container `web` whose first process is 100. */
export function facts(pids: readonly number[], more: Partial<ContainerFacts> = {}): ContainerFacts {
  return { id: 'web', init: 100, pids, execs: new Map(), spec: {}, ...more };
}
