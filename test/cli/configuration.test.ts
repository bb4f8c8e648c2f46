import { expect } from 'chai';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { configurationMarkdown, settingRows } from '../../cli/configuration.ts';
import { readConfig } from '../../pipeline/runtime/config.ts';
import { projectRoot } from '../project-root.ts';
import { runCli } from './support/run-cli.ts';

describe('headwater config', () => {
  it('docs/configuration.md is what the settings say (npx headwater config --markdown > docs/configuration.md)', () => {
    expect(readFileSync(join(projectRoot(), 'docs', 'configuration.md'), 'utf8')).to.equal(configurationMarkdown());
  });

  it('shows each default as it would be written: reading it back gives the default', () => {
    const rows = settingRows({}).filter((row) => row.default !== '');
    expect(rows.length).to.be.greaterThan(20);
    const { provenance: _, ...read } = readConfig(Object.fromEntries(rows.map((row) => [row.name, row.default])));
    const { provenance: __, ...defaults } = readConfig({});
    expect(read).to.deep.equal(defaults);
  });

  it('hides passwords, in what is valid and in what is not', async () => {
    const { code, stdout, stderr } = await runCli(['config', '--json'], {
      DATABASE_URL: 'postgres://me:hunter2@db/x?password=hunter2',
      NATS_URL: 'http://me:hunter2@nats',
    });
    expect(code).to.equal(2);
    expect(stdout + stderr).to.not.include('hunter2');
    const rows = JSON.parse(stdout) as { name: string; value: string; source: string }[];
    expect(rows.find(({ name }) => name === 'DATABASE_URL')).to.include({
      source: 'environment',
      value: 'postgres://me:***@db/x?password=***',
    });
    expect(rows.find(({ name }) => name === 'NATS_URL')).to.include({ source: 'invalid' });
  });
});
