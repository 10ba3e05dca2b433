// A container that changes files and memory all the time goes back to the same checkpoint, again and again; beside the same with
// `ctr`, which removes the container and makes it anew.
import { remove, start } from '../counter.ts';
import { median, report, run, timed, type Options } from '../measure.ts';
import { importSmall } from './images.ts';

const [ours, theirs] = ['e-rewound', 'e-remade'];
const reference = 'docker.io/bench/rewind:latest';

export async function rewindRate(options: Options): Promise<void> {
  const { runs = 100 } = options;
  const image = importSmall();
  start(ours, 'ours', image, 8);
  start(theirs, 'theirs', image, 8);
  const [a, b]: [number[], number[]] = [[], []];
  try {
    run('stasis', 'checkpoint', ours, '--name', 'c', '--require-memory');
    run('ctr', 'containers', 'checkpoint', '--rw', '--task', theirs, reference);
    for (let n = 0; n <= runs; n++) {
      const back = timed(() => run('stasis', 'restore', ours, '--snapshot', 'c', '--require-memory'));
      const anew = timed(() => {
        remove(theirs);
        run('ctr', 'containers', 'restore', '--rw', '--live', theirs, reference);
      });
      if (n === 0) continue; // warm-up
      a.push(back);
      b.push(anew);
    }
  } finally {
    for (const name of [ours, theirs]) remove(name);
    run('sh', '-c', `stasis rm ${ours} c; ctr images rm ${reference}; true`);
  }
  const peerName = 'ctr: remove, and containers restore --rw --live';
  const row = {
    name: 'rewind-rate',
    unit: 'ms',
    ours: median(a),
    peer: median(b),
    runs,
    peerName,
    target: 0.4,
  };
  report(row, options);
}
