// A container that changes files and memory all the time goes back to the same checkpoint, again and again; beside the same with
// podman, and with `ctr`: each removes the container and makes it anew.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { assertHeld, counter, JUMP, numberOf, pidOf, remove, spoil, start, untilNumber } from '../counter.ts';
import { median, report, run, timed, type Options } from '../measure.ts';
import { importSmall } from './images.ts';
import { withPodman } from './podman.ts';

const [ours, theirs, podmans] = ['e-rewound', 'e-remade', 'e-reimported'];
const reference = 'docker.io/bench/rewind:latest';
const MEGABYTES = 8;

export async function rewindRate(options: Options, wanted: (name: string) => boolean): Promise<void> {
  if (wanted('rewind-rate')) await besidePodman(options);
  if (wanted('rewind-rate-ctr')) await besideCtr(options);
}

/** A container that can be brought back to one checkpoint. */
interface Side {
  /** Its first process, as it is now. */
  readonly pid: () => number;
  readonly back: () => void;
  /** What it had counted to a moment before its checkpoint. */
  readonly least: number;
}

async function besidePodman(options: Options): Promise<void> {
  const image = importSmall();
  await withPodman(image, async ({ podman, start: startTheirs, images, pidOf: pidIn }) => {
    const file = join(images, 'checkpoint.tar');
    const pid = (): number => pidIn(podmans);
    startTheirs(podmans, image, counter(MEGABYTES, 0));
    const least = countedTo(pid());
    // Without compression, which is the quickest. With --leave-running its files would be read after it runs on.
    podman('container', 'checkpoint', '--compress', 'none', '--export', file, podmans);
    const back = (): void => {
      podman('rm', '--force', '--time', '0', podmans);
      podman('container', 'restore', '--import', file);
    };
    back();
    measure(options, 'rewind-rate', { pid, back, least }, 'podman: rm, container restore --import', 0.4);
  });
}

async function besideCtr(options: Options): Promise<void> {
  start(theirs, 'theirs', importSmall(), MEGABYTES);
  const pid = (): number => pidOf(theirs);
  try {
    const least = countedTo(pid());
    run('ctr', 'containers', 'checkpoint', '--rw', '--task', theirs, reference);
    const back = (): void => {
      remove(theirs);
      run('ctr', 'containers', 'restore', '--rw', '--live', theirs, reference);
    };
    measure(options, 'rewind-rate-ctr', { pid, back, least }, 'ctr: remove, containers restore --rw --live');
  } finally {
    remove(theirs);
    run('sh', '-c', `ctr images rm ${reference}; true`);
  }
}

function measure(options: Options, name: string, peer: Side, peerName: string, target?: number): void {
  const { runs = 100 } = options;
  start(ours, 'ours', importSmall(), MEGABYTES);
  const pid = (): number => pidOf(ours);
  const [a, b]: [number[], number[]] = [[], []];
  try {
    const least = countedTo(pid());
    run('stasis', 'checkpoint', ours, '--name', 'c', '--require-memory');
    const back = (): string => run('stasis', 'restore', ours, '--snapshot', 'c', '--require-memory');
    for (let n = 0; n <= runs; n++) {
      const [one, two] = [rewind({ pid, back, least }), rewind(peer)];
      if (n === 0) continue; // warm-up
      a.push(one);
      b.push(two);
    }
  } finally {
    remove(ours);
    run('sh', '-c', `stasis rm ${ours} c; true`);
  }
  const row = { name, unit: 'ms', ours: median(a), peer: median(b), runs, peerName };
  report(target === undefined ? row : { ...row, target }, options);
}

/** So far that one that was started anew could not be taken for one that was rewound. */
function countedTo(pid: number): number {
  return untilNumber(() => numberOf(pid), 500);
}

/** @returns milliseconds of one rewind, which has brought files and memory back. @throws where it has not */
function rewind({ pid, back, least }: Side): number {
  spoil(pid());
  const time = timed(back);
  const now = pid();
  const number = untilNumber(() => numberOf(now), 1); // it is empty at times, while it is written
  if (number < least || number >= JUMP)
    throw new Error(`after a rewind it counts ${number}, not from ${least}`);
  if (existsSync(`/proc/${now}/root/spoiled`))
    throw new Error('after a rewind a file of later is still there');
  assertHeld(now, MEGABYTES);
  return time;
}
