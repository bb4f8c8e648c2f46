import { expect } from 'chai';
import { CatalogError } from '../../schemas/catalog.ts';
import { defiCatalog, parseCatalog } from '../../schemas/catalog-file.ts';
import { channelsOf, defaultCatalog, entryFor, isCaptured } from '../../schemas/catalog.ts';

function faultsOf(text: string): readonly string[] {
  try {
    parseCatalog(text, 'catalog.yaml');
  } catch (error) {
    if (error instanceof CatalogError) return error.faults;
    throw error;
  }
  return [];
}

describe('catalogue file', () => {
  it('fills in every default', () => {
    const catalog = parseCatalog('tables: { public.t: { channel: things } }', 'catalog.yaml');
    expect(catalog).to.include({ others: true }).and.to.deep.include({ exclude: [], aggregates: {} });
    expect(catalog.tables.get('public.t')).to.deep.equal({
      type: 'row',
      channel: 'things',
      filters: {},
      exclude: [],
      appendOnly: false,
      cache: undefined,
    });
  });

  it('an empty file is the default catalogue', () => expect(parseCatalog('', 'catalog.yaml')).to.deep.equal(defaultCatalog()));

  it('tells all faults of the shape at once, with their lines and the likely meaning', () => {
    const text = `tables:
  public.prices:
    chanel: prices
    filters: { tokenId: token_id }
    exclude: [1]
    appendOnly: sometimes
other: true
aggregates:
  price: { table: prices, by: [], of: row, windows: [1 minute], functions: [mean] }
`;
    expect(faultsOf(text)).to.deep.equal([
      'catalog.yaml:3: tables → public.prices → chanel is not a known key; did you mean channel?',
      'catalog.yaml:4: tables → public.prices → filters → tokenId is not a known key; did you mean tokenIds?',
      'catalog.yaml:5: tables → public.prices → exclude[0] must be text',
      'catalog.yaml:6: tables → public.prices → appendOnly must be true or false',
      'catalog.yaml:7: other is not a known key; did you mean others?',
      'catalog.yaml:9: aggregates → price → table is "prices", but tables are written <schema>.<table>',
      'catalog.yaml:9: aggregates → price → of must be one of rows, changes; did you mean rows?',
      'catalog.yaml:9: aggregates → price → windows[0] is "1 minute", but must be a duration like 30s, 5m, 1h or 1d',
      'catalog.yaml:9: aggregates → price → functions[0] must be one of count, sum, avg, min, max, open, high, low, close, p50, p90, p95, p99',
    ]);
  });

  it('tells what contradicts itself or is not for the catalogue to say', () => {
    const text = `tables:
  nodot: {}
  headwater.api_keys: {}
  pg_catalog.pg_class: {}
  audit.log: {}
  public.a: { type: tick, channel: alerts, filters: { value: amount }, exclude: [amount] }
exclude: [audit.*]
aggregates:
  a: { table: audit.log, by: [], of: rows, functions: [sum] }
`;
    expect(faultsOf(text)).to.deep.equal([
      'catalog.yaml:2: tables → nodot is not a table name: write <schema>.<table>',
      "catalog.yaml:3: tables → headwater.api_keys is one of Headwater's own tables, which are not configurable",
      'catalog.yaml:4: tables → pg_catalog.pg_class is a table of the system, and those are never captured',
      'catalog.yaml:5: tables → audit.log is named here, and excluded by a pattern in exclude: take one of them out',
      'catalog.yaml:6: tables → public.a → type is tick, which events that are no rows have',
      'catalog.yaml:6: tables → public.a → channel is alerts, which belongs to the alert history',
      'catalog.yaml:6: tables → public.a → filters → value is amount, which exclude keeps out of the log',
      'catalog.yaml:9: aggregates → a needs value: the column to aggregate',
      'catalog.yaml:9: aggregates → a needs windows or sliding',
      'catalog.yaml:9: aggregates → a → table is audit.log, which is excluded',
    ]);
  });

  const broken: readonly (readonly [name: string, text: string, fault: RegExp])[] = [
    ['no YAML', 'tables: [', /^catalog.yaml:1: /],
    ['a list', '- a', /the catalogue must be a map/],
    ['a table named twice', 'tables:\n  public.a: {}\n  public.a: {}\n', /^catalog.yaml:3: .*unique/],
    ['a table without a value', 'tables:\n  public.a:\n', /public.a must be a map \(`\{\}` for none\)/],
    [
      'aliases that expand without end',
      `a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c,*c]\n`,
      /alias|not a known key/i,
    ],
  ];
  for (const [name, text, fault] of broken) it(`refuses ${name}`, () => expect(faultsOf(text).join('\n')).to.match(fault));
});

describe('catalogue: what is captured, and as what', () => {
  const catalog = parseCatalog('tables: { public.named: { type: thing } }\nexclude: ["audit.*", "*.tmp_*"]', 'catalog.yaml');

  it('a table that is not named has its own name for a channel', () => {
    expect(entryFor(catalog, 'my.app', 'Orders')).to.deep.include({ type: 'row', channel: 'my.app.Orders' });
    expect(entryFor(catalog, 'public', 'named')).to.deep.include({ type: 'thing', channel: 'public.named' });
  });

  it('patterns keep tables out, and mean dots as dots', () => {
    expect(isCaptured(catalog, 'audit', 'log')).to.equal(false);
    expect(isCaptured(catalog, 'auditx', 'log')).to.equal(true);
    expect(isCaptured(catalog, 'public', 'tmp_load')).to.equal(false);
    expect(isCaptured(catalog, 'public', 'not_tmp')).to.equal(true);
  });

  it('others: false leaves only what is named', () => {
    const narrow = { ...catalog, others: false };
    expect(isCaptured(narrow, 'public', 'named')).to.equal(true);
    expect(isCaptured(narrow, 'public', 'other')).to.equal(false);
    expect(isCaptured(narrow, 'headwater', 'alert_rules')).to.equal(true);
  });

  it('tables of the system never', () => {
    for (const schema of ['pg_catalog', 'information_schema', 'pg_toast', 'pg_temp_3']) {
      expect(isCaptured(defaultCatalog(), schema, 't'), schema).to.equal(false);
    }
  });

  it("of Headwater's own only what others live on, and hashes of keys never", () => {
    const own = ['alert_rules', 'api_keys', 'silences', 'alert_history'];
    for (const table of own) expect(isCaptured(catalog, 'headwater', table), table).to.equal(true);
    for (const table of ['users', 'user_devices', 'notification_logs', 'offsets', 'constructor']) {
      expect(isCaptured(catalog, 'headwater', table), table).to.equal(false);
    }
    expect(own.map((table) => entryFor(catalog, 'headwater', table).channel)).to.deep.equal([undefined, undefined, undefined, 'alerts']);
    expect(entryFor(catalog, 'headwater', 'api_keys').exclude).to.include('hash');
    expect(entryFor(catalog, 'headwater', 'alert_history')).to.deep.include({ type: 'alert', filters: { userId: 'user_id' } });
  });

  it('channels hold their tables, also those that only the database knows', () => {
    const shared = parseCatalog('tables: { a.x: { channel: both }, b.y: { channel: both } }\nexclude: [audit.*]', 'catalog.yaml');
    const captured = [
      { schema: 'public', table: 'more' },
      { schema: 'audit', table: 'log' },
      { schema: 'headwater', table: 'api_keys' },
      { schema: 'a', table: 'x' },
    ];
    const channels = channelsOf(shared, captured);
    expect([...channels].map(([channel, tables]) => [channel, [...tables.keys()]])).to.deep.equal([
      ['both', ['a.x', 'b.y']],
      ['alerts', ['headwater.alert_history']],
      ['public.more', ['public.more']],
    ]);
  });
});

describe('the DeFi catalogue', () => {
  it('is valid, and its channels and types are pinned', () => {
    const catalog = defiCatalog();
    const lines = [...catalog.tables].map(([table, entry]) => `${table} ${String(entry.channel)} ${entry.type}`);
    expect(lines).to.deep.equal([
      'public.prices prices price_update',
      'public.tvl tvl tvl_update',
      'public.protocols protocols protocol_update',
      'public.tokens tokens token_update',
      'public.chains chains chain_update',
      'public.liquidations liquidations liquidation',
      'public.governance_proposals governance governance',
      'public.emissions emissions emission',
    ]);
    expect(Object.keys(catalog.aggregates)).to.include('price');
    expect(catalog.others).to.equal(true);
  });
});
