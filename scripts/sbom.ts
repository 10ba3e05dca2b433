// A software bill of materials in CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/): what a release ships. npm's own
// would list what is installed; this lists what licenses.ts collects for the packages, and CRIU's Debian packages.
//
//   scripts/node scripts/sbom.ts SOURCES NODE_MODULES...
//
// SOURCES: the file of that name in the package stasis-criu; NODE_MODULES: what is shipped, a folder for each processor.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { dependencies } from './licenses.ts';

const [sources, ...modules] = process.argv.slice(2);
if (sources === undefined || modules.length === 0) throw new Error('usage: sbom.ts SOURCES NODE_MODULES...');

const { version } = JSON.parse(readFileSync(join(import.meta.dirname, '../package.json'), 'utf8')) as {
  version: string;
};
const npm = modules.flatMap(dependencies).map(({ name, version, license }) => {
  const purl = `pkg:npm/${name.replace('@', '%40')}@${version}`;
  return {
    type: 'library',
    'bom-ref': purl,
    name,
    version,
    licenses: license.includes(' ')
      ? [{ expression: license.replace(/^\(|\)$/g, '') }]
      : [{ license: { id: license } }],
    purl,
  };
});
const debian = [
  ...readFileSync(sources, 'utf8').matchAll(/^([a-z0-9.+-]+) (\d\S*) ([a-z0-9.+-]+) (\d\S*)$/gm),
].map(([, name = '', release = '', source = '', sourceVersion = '']) => {
  const purl = `pkg:deb/debian/${name}@${encodeURIComponent(release)}`;
  return {
    type: 'library',
    'bom-ref': purl,
    name,
    version: release,
    purl,
    properties: [{ name: 'debian:source', value: `${source} ${sourceVersion}` }],
  };
});
const root = `pkg:generic/stasis@${version}`;
const parts = [...new Map([...npm, ...debian].map((part) => [part.purl, part])).values()];
console.log(
  JSON.stringify(
    {
      bomFormat: 'CycloneDX',
      specVersion: '1.6',
      version: 1,
      metadata: {
        component: {
          type: 'application',
          'bom-ref': root,
          name: 'stasis',
          version,
          licenses: [{ license: { id: 'Apache-2.0' } }],
        },
      },
      components: parts,
      dependencies: [{ ref: root, dependsOn: parts.map((part) => part['bom-ref']) }],
    },
    null,
    2,
  ),
);
