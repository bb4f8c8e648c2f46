import { expect } from 'chai';
import { readdir, readFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { generatedSources } from '../../schemas/generate.ts';
import { projectRoot } from '../project-root.ts';

describe('generated sources', () => {
  it('are what `npm run generate` makes of the schemas and the catalogue', async () => {
    const folder = join(projectRoot(), 'schemas');
    const sources = await generatedSources(pathToFileURL(`${folder}/`));
    expect(existsSync(join(folder, 'generated'))).to.equal(true);
    expect((await readdir(join(folder, 'generated'))).sort()).to.deep.equal([...sources.keys()].sort());
    for (const [name, source] of sources) {
      const current = await readFile(join(folder, 'generated', name), 'utf8');
      expect(current === source, `schemas/generated/${name} is out of date: run \`npm run generate\``).to.equal(true);
    }
  });
});
