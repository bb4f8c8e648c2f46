import { expect } from 'chai';
import { cacheProcessor } from '../../../processors/cache/fold.ts';
import { defaultCatalog, unnamedEntry } from '../../../schemas/catalog.ts';
import { captureFixture, type CaptureFixture } from './support/fixture.ts';

describe('capture: large tables', () => {
  let fixture: CaptureFixture;
  before(async () => {
    fixture = await captureFixture();
  });
  after(() => fixture.close());

  it('are marked when their copy begins, and from there on the cache leaves them out unless the catalogue wants them', async () => {
    for (const table of ['big', 'wanted', 'small']) await fixture.query(`CREATE TABLE ${table} (id int PRIMARY KEY, v text)`);
    for (const table of ['big', 'wanted'])
      await fixture.query(`INSERT INTO ${table} SELECT i, repeat('x', 100) FROM generate_series(1, 2000) i`);
    await fixture.query(`INSERT INTO small VALUES (1, 'x')`);
    await fixture.streaming({ env: { HEADWATER_SNAPSHOT_MAX: '64KB' } });
    for (const table of ['public.big', 'public.wanted']) await fixture.copied(table);
    const events = await fixture.settled();
    const begins = events.filter(({ mark, data }) => mark === 'backfill' && data?.['phase'] === 'begin');
    expect(begins.map(({ data }) => data)).to.have.deep.members([
      { phase: 'begin', table: 'public.big', large: true },
      { phase: 'begin', table: 'public.wanted', large: true },
    ]);
    expect(events.filter(({ op, table }) => op === 'read' && table === 'public.big')).to.have.length(2_000);

    const catalog = { ...defaultCatalog(), tables: new Map([['public.wanted', { ...unnamedEntry, channel: 'wanted', cache: true }]]) };
    const processor = cacheProcessor(catalog);
    const effects = processor.begin();
    const log = await fixture.log();
    for await (const page of log.read(1)) {
      for (const event of page) processor.apply(event, effects);
      if (page.at(-1)!.seq >= events.at(-1)!.seq) break;
    }
    expect([...effects.uncached]).to.deep.equal([['public.big', begins.find(({ data }) => data!['table'] === 'public.big')!.seq]]);
  });
});
