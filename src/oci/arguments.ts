// The two dialects of the runtimes' command line, as pure functions from options to arguments.
// runc: its man pages (man/runc-*.8.md); crun: crun(1). What one of them lacks is left out where it changes nothing,
// and refused where it would.
import { OciError } from './error.ts';
import type {
  CheckpointOptions,
  CreateOptions,
  CriuOptions,
  ExecOptions,
  RestoreOptions,
  RuntimeName,
} from './types.ts';

export interface GlobalOptions {
  /** Folder of the runtime's own state. */
  readonly root?: string;
  /** The spec's cgroup path is `slice:prefix:name`, for systemd. */
  readonly systemdCgroup?: boolean;
}

/** The log comes first: wrappers that clients put around a runtime look for it there. */
export function globalArguments(options: GlobalOptions, log: string | undefined): string[] {
  return [
    ...(log === undefined ? [] : ['--log', log]),
    '--log-format',
    'json',
    ...value('--root', options.root),
    ...flag('--systemd-cgroup', options.systemdCgroup),
  ];
}

export function createArguments(options: CreateOptions): string[] {
  return [
    'create',
    '--bundle',
    options.bundle,
    '--pid-file',
    options.pidFile,
    ...value('--console-socket', options.consoleSocket),
    ...flag('--no-pivot', options.noPivot),
    ...flag('--no-new-keyring', options.noNewKeyring),
    options.id,
  ];
}

export function execArguments(options: ExecOptions): string[] {
  return [
    'exec',
    '--process',
    options.processFile,
    '--pid-file',
    options.pidFile,
    ...value('--console-socket', options.consoleSocket),
    ...flag('--detach', options.detach),
    options.id,
  ];
}

/** @throws OciError of kind `unsupported` for what crun cannot do */
export function checkpointArguments(runtime: RuntimeName, options: CheckpointOptions): string[] {
  if (runtime === 'crun') {
    refuse('checkpoint', options.id, {
      'an empty namespace': options.emptyNs?.length,
      'a status descriptor': options.statusFd,
    });
  }
  return [
    'checkpoint',
    '--image-path',
    options.imageDir,
    '--work-path',
    options.workDir,
    ...flag('--leave-running', options.leaveRunning),
    ...criuArguments(options),
    ...value('--parent-path', options.parentPath),
    // The first extra descriptor that the door hands over is 3.
    ...(options.statusFd === undefined ? [] : ['--lazy-pages', '--status-fd', '3']),
    options.id,
  ];
}

/** @throws OciError of kind `unsupported` for what crun cannot do */
export function restoreArguments(runtime: RuntimeName, options: RestoreOptions): string[] {
  if (runtime === 'crun') {
    refuse('restore', options.id, {
      'an empty namespace': options.emptyNs?.length,
      'lazy pages': options.lazyPages,
      'a root without pivot_root': options.noPivot,
    });
  }
  return [
    'restore',
    '--bundle',
    options.bundle,
    '--image-path',
    options.imageDir,
    '--work-path',
    options.workDir,
    '--pid-file',
    options.pidFile,
    ...value('--console-socket', options.consoleSocket),
    ...flag('--detach', options.detach),
    // crun has no such flag, and is never a subreaper.
    ...flag('--no-subreaper', runtime === 'runc' && options.noSubreaper),
    ...flag('--no-pivot', options.noPivot),
    ...flag('--lazy-pages', options.lazyPages),
    ...criuArguments(options),
    options.id,
  ];
}

function criuArguments(options: CriuOptions): string[] {
  return [
    ...flag('--tcp-established', options.tcpEstablished),
    ...flag('--ext-unix-sk', options.extUnixSk),
    ...flag('--shell-job', options.shellJob),
    ...flag('--file-locks', options.fileLocks),
    ...value('--manage-cgroups-mode', options.manageCgroupsMode),
    ...(options.emptyNs ?? []).flatMap((kind) => ['--empty-ns', kind]),
  ];
}

function refuse(verb: string, id: string, wanted: Record<string, number | boolean | undefined>): void {
  for (const [what, on] of Object.entries(wanted)) {
    if (on !== undefined && on !== false && on !== 0) {
      throw new OciError('unsupported', verb, {
        subject: id,
        said: `crun cannot ${verb} with ${what}`,
        remedy: 'use runc',
      });
    }
  }
}

function flag(name: string, on: boolean | undefined): string[] {
  return on === true ? [name] : [];
}

function value(name: string, text: string | undefined): string[] {
  return text === undefined || text === '' ? [] : [name, text];
}
