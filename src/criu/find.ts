import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { access, mkdir, readlink, rename, stat, symlink } from 'node:fs/promises';
import { basename, delimiter, dirname, isAbsolute, join, resolve } from 'node:path';
import { Unavailable } from '../errors.ts';
import { ANSWER_TIMEOUT_MS, type Exec } from '../sys/command.ts';

/** Where a CRIU is and what it can do. */
export interface Criu {
  /** Absolute path of the program. */
  readonly path: string;
  /** `4.2.1` */
  readonly version: string;
  /**
   * Whether a clone may be made with it: before 4.2 a dump holds the pages of the vDSO's random number generator
   * (MAP_DROPPABLE), so that two clones draw the same "random" bytes.
   */
  readonly safeForClones: boolean;
  /** Whether `criu check` finds the kernel fit. */
  readonly works: boolean;
  /** What `criu check` objects to, when it does. */
  readonly complaint: string;
}

/** Kernel features that `criu check --feature` knows and that decide what we do. */
export const criuFeatures = ['mem_dirty_track', 'uffd', 'uffd-noncoop', 'pagemap_scan'] as const;
export type CriuFeature = (typeof criuFeatures)[number];

interface Known {
  readonly stamp: string;
  readonly criu: Promise<Criu>;
  readonly features: Map<CriuFeature, Promise<boolean>>;
}

/** Finds CRIU once, and again when the program changes. Every answer is kept (none where a check took too long): `criu check` costs a process and 50 ms. */
export class CriuFinder {
  readonly #exec: Exec;
  readonly #configured: string;
  readonly #env: NodeJS.ProcessEnv;
  #known: Known | undefined;

  /** @param configured `runtime.criu` of the configuration: a name on PATH, or a path */
  constructor(exec: Exec, configured: string, env: NodeJS.ProcessEnv = process.env) {
    this.#exec = exec;
    this.#configured = configured;
    this.#env = env;
  }

  /** @throws Unavailable when there is no such program, or it does not answer */
  async get(): Promise<Criu> {
    return (await this.#current()).criu;
  }

  async has(feature: CriuFeature): Promise<boolean> {
    const { criu, features } = await this.#current();
    let answer = features.get(feature);
    if (answer === undefined) {
      answer = criu.then(async ({ path }) => {
        const result = await this.#exec(path, ['check', '--feature', feature], {
          timeoutMs: ANSWER_TIMEOUT_MS,
        });
        if (result.timedOut) features.delete(feature);
        return result.exitCode === 0;
      });
      features.set(feature, answer);
    }
    return answer;
  }

  async #current(): Promise<Known> {
    const path = await findProgram(this.#configured, this.#env);
    const { ino, mtimeMs } = await stat(path);
    const stamp = `${path}:${ino}:${mtimeMs}`;
    if (this.#known?.stamp !== stamp) {
      const known: Known = { stamp, criu: probe(this.#exec, path), features: new Map() };
      known.criu.catch(() => {
        if (this.#known === known) this.#known = undefined;
      });
      this.#known = known;
      return known;
    }
    return this.#known;
  }
}

const noAnswer = `no answer in ${ANSWER_TIMEOUT_MS / 1000} s`;

async function probe(exec: Exec, path: string): Promise<Criu> {
  const said = await exec(path, ['--version'], { timeoutMs: ANSWER_TIMEOUT_MS });
  const version = /^Version: (\d+(?:\.\d+)*)/m.exec(said.stdout)?.[1];
  if (version === undefined) {
    const why = said.timedOut ? noAnswer : (said.spawnError ?? said.stderr.trim());
    throw new Unavailable(`${path} is not a CRIU that runs here: ${why}`, {
      subject: path,
      remedy: 'install criu, or name one in runtime.criu of the configuration',
    });
  }
  const check = await exec(path, ['check'], { timeoutMs: ANSWER_TIMEOUT_MS });
  // An error, since those are not kept: the host was too busy to answer, which says nothing of CRIU.
  if (check.timedOut) {
    throw new Unavailable(`${path} check: ${noAnswer}`, { subject: path, remedy: 'try again' });
  }
  const works = check.exitCode === 0;
  const complaint = works
    ? ''
    : (firstError(check.stderr) ?? firstError(check.stdout) ?? 'criu check failed');
  return { path, version, safeForClones: isAtLeast(version, 4, 2), works, complaint };
}

function firstError(text: string): string | undefined {
  return (
    /Error \([^)]*\): *(.*)/.exec(text)?.[1] ??
    text
      .trim()
      .split('\n')
      .find((line) => line !== '')
  );
}

/** Whether a dotted version is the given one or a later. */
export function isAtLeast(version: string, major: number, minor: number): boolean {
  const [first = 0, second = 0] = version.split('.').map(Number);
  return first > major || (first === major && second >= minor);
}

/**
 * The absolute path of a program: as given when it holds a slash, else the first on PATH.
 * @throws Unavailable
 */
export async function findProgram(name: string, env: NodeJS.ProcessEnv = process.env): Promise<string> {
  const candidates = name.includes('/')
    ? [resolve(name)]
    : (env['PATH'] ?? '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin')
        .split(delimiter)
        .filter(isAbsolute)
        .map((folder) => join(folder, name));
  for (const candidate of candidates) {
    const usable = await access(candidate, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (usable) return candidate;
  }
  throw new Unavailable(`"${name}" is not ${name.includes('/') ? 'an executable file' : 'on PATH'}`, {
    subject: name,
    remedy: 'install criu, or name one in runtime.criu of the configuration',
  });
}

/**
 * A folder in which the program is called `criu`, to be put first on an OCI runtime's PATH: from 1.4 on runc has no option
 * for it, and crun never had one. A program of another name gets a link in `linkFolder`.
 */
export async function criuFolder(path: string, linkFolder: string): Promise<string> {
  if (basename(path) === 'criu') return dirname(path);
  await mkdir(linkFolder, { recursive: true, mode: 0o700 });
  const link = join(linkFolder, 'criu');
  if ((await readlink(link).catch(() => '')) !== path) {
    const made = `${link}.${randomUUID()}`; // callers at the same moment each make their own
    await symlink(path, made);
    await rename(made, link); // replaces at once, so that a neighbour never finds none
  }
  return linkFolder;
}
