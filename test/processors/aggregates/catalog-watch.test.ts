import { expect } from 'chai';
import { renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { silentLogger } from '../../../pipeline/runtime/logging.ts';
import { CatalogWatch } from '../../../processors/aggregates/catalog-watch.ts';
import { parseCatalog } from '../../../schemas/catalog-file.ts';
import { temporaryDirectory } from '../../support/servers.ts';

const yaml = (...names: readonly string[]): string =>
  `aggregates:\n${names.map((name) => `  ${name}: { table: public.prices, by: [chain], of: rows, windows: [1h], functions: [count] }\n`).join('')}`;

describe('the watched catalogue', () => {
  let directory: string;
  let file: string;
  beforeEach(() => {
    directory = temporaryDirectory();
    file = join(directory, 'catalog.yaml');
    writeFileSync(file, yaml('a', 'b'));
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  const watch = (log = silentLogger()): CatalogWatch => new CatalogWatch(parseCatalog(yaml('a', 'b'), file), file, log);
  const names = async (one: CatalogWatch): Promise<readonly string[] | undefined> => {
    const definitions = await one.changed();
    return definitions && [...definitions.keys()];
  };

  it('gives what it was started with at once, and not again', async () => {
    const one = watch();
    expect(await names(one)).to.deep.equal(['a', 'b']);
    for (let n = 0; n < 4; n++) expect(await names(one)).to.equal(undefined);
  });

  it('takes no part of a file for the whole: what it says counts when it is found twice', async () => {
    const one = watch();
    await one.changed();
    const text = yaml('a', 'b', 'c');
    // Up to here `b` is not there, then it cannot be read at all.
    for (const end of [text.indexOf('  b:'), text.indexOf('  c:') + 20, text.length]) {
      writeFileSync(file, text.slice(0, end));
      expect(await names(one)).to.equal(undefined);
    }
    expect(await names(one)).to.deep.equal(['a', 'b', 'c']);
    expect(await names(one)).to.equal(undefined);
  });

  it('finds what has changed since it was read for the start', async () => {
    const one = watch();
    writeFileSync(file, yaml('a'));
    expect(await names(one)).to.deep.equal(['a', 'b']);
    expect(await names(one)).to.deep.equal(['a']);
  });

  it('keeps what it has while the file is away, and takes the one that comes in its place', async () => {
    const one = watch();
    await one.changed();
    await one.changed();
    renameSync(file, `${file}.old`);
    for (let n = 0; n < 2; n++) expect(await names(one)).to.equal(undefined);
    writeFileSync(`${file}.new`, yaml('c'));
    renameSync(`${file}.new`, file);
    expect(await names(one)).to.equal(undefined);
    expect(await names(one)).to.deep.equal(['c']);
  });

  it('says once that a file cannot be used', async () => {
    const lines: string[] = [];
    const one = watch({ ...silentLogger(), error: (line: unknown) => void lines.push(String(line)) });
    await one.changed();
    writeFileSync(file, 'aggregates: { price: 7 }');
    for (let n = 0; n < 4; n++) expect(await names(one)).to.equal(undefined);
    expect(lines.length).to.equal(1);
    expect(lines[0]).to.match(/the definitions of before stay in force/);
    writeFileSync(file, yaml('a'));
    await one.changed();
    expect(await names(one)).to.deep.equal(['a']);
  });
});
