import type { Finding } from '../../proto/gen/stasis/stasis.ts';
import { version } from '../../version.ts';
import type { Session } from '../session.ts';
import { endsText, shimTable, shimView } from '../shim-view.ts';
import { table } from '../table.ts';
import { printable } from '../text.ts';

/** `stasis info`: exits with 0 when stasisd answers, whatever is missing; `ok` in the JSON says the rest. */
export async function info(session: Session): Promise<void> {
  const answer = await session.stasis.info({}, session.options);
  if (answer.version !== version) {
    session.warn(`stasisd is version ${answer.version}, this command line ${version}: restart stasisd`);
  }
  session.print(
    () => ({
      version: answer.version,
      daemonPid: answer.daemonPid,
      socket: session.globals.socket,
      rootDataset: answer.rootDataset,
      configFile: answer.configFile,
      ok: answer.findings.every(({ ok }) => ok),
      findings: answer.findings.map(({ name, ok, value, remedy }) => ({
        name,
        ok,
        value,
        remedy: remedy === '' ? null : remedy,
      })),
      shims: answer.shims.map(shimView),
      warnings: session.warnings,
    }),
    () => {
      const head = [
        ['stasisd', `${answer.version}, pid ${answer.daemonPid}, ${session.globals.socket}`],
        ['pool', answer.rootDataset],
        ['config', answer.configFile],
      ] as const;
      const lines = head.map(([name, value]) => `${`${name}:`.padEnd(9)} ${printable(value)}\n`);
      const shims = answer.shims.length === 0 ? '' : `\n${shimTable(answer.shims)}${endsText(answer.shims)}`;
      return `${lines.join('')}\n${findingsText(answer.findings)}${shims}`;
    },
    () => answer.findings.filter(({ ok }) => !ok).map(({ name }) => name),
  );
}

function findingsText(findings: readonly Finding[]): string {
  const rows = findings.map(({ name, ok, value }) => [ok ? 'ok' : 'missing', name, value]);
  const missing = findings.filter(({ ok }) => !ok);
  const fixes = missing.map(
    ({ name, remedy }) => `${printable(`${name}: ${remedy || 'no way to get it is known'}`)}\n`,
  );
  return (
    table(['STATE', 'WHAT', 'FOUND'], rows) + (fixes.length === 0 ? '' : `\nTo do:\n  ${fixes.join('  ')}`)
  );
}
