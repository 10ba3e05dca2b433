// A part of the parity scenarios (test/parity/) with a worker that is ended all the time: a whole run of them is `STASIS_TEST_KILL`'s.
process.env['STASIS_TEST_KILL'] ??= '500';
await import('../../parity/run.test.ts');
