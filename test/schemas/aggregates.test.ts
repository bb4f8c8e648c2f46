import { expect } from 'chai';
import { definitionsOf } from '../../processors/aggregates/definition.ts';
import type { Definition } from '../../processors/aggregates/model.ts';
import { CatalogError } from '../../schemas/catalog.ts';
import { defiCatalog, parseCatalog } from '../../schemas/catalog-file.ts';

const faultsOf = (text: string): readonly string[] => {
  try {
    parseCatalog(text, 'catalog.yaml');
  } catch (error) {
    if (error instanceof CatalogError) return error.faults;
    throw error;
  }
  return [];
};

/** The faults of an aggregate `a` with these members, without their place in front. */
const faultsWith = (members: string): readonly string[] =>
  faultsOf(`aggregates: { a: { table: public.t, by: [], value: v, of: rows, functions: [sum], ${members} } }`).map((fault) =>
    fault.replace('catalog.yaml:1: aggregates → a → ', ''),
  );

const define = (members: string, of = 'rows'): Definition =>
  definitionsOf(
    parseCatalog(`aggregates: { a: { table: public.t, by: [chain], value: v, of: ${of}, functions: [sum], ${members} } }`, 'catalog.yaml'),
  ).get('a')!;

const minute = 60_000_000;

describe('aggregates of the catalogue', () => {
  it('have their sizes in order, and ten thousand windows of each are kept', () => {
    const { levels, windows, sliding } = define('windows: [1h, 1m, 1d], sliding: [24h, 5m]', 'changes');
    expect(levels).to.deep.equal([
      { text: '1m', micros: minute, keep: 10_000 * minute },
      { text: '1h', micros: 60 * minute, keep: 600_000 * minute },
      { text: '1d', micros: 1_440 * minute, keep: 14_400_000 * minute },
    ]);
    expect(windows).to.deep.equal(['1m', '1h', '1d']);
    expect(sliding.map(({ text }) => text)).to.deep.equal(['24h', '5m']);
  });

  it('have panes that all sliding windows are made of, kept for as long as the longest needs, when there are no others', () => {
    const { levels, windows } = define('sliding: [90s, 2m, 5d]');
    expect(levels).to.deep.equal([{ text: '30s', micros: minute / 2, keep: 5 * 1_440 * minute }]);
    expect(windows).to.deep.equal([]);
  });

  it('are kept for a year of rows, or ten of them, unless they say otherwise', () => {
    const days = (members: string): readonly number[] => define(members).levels.map(({ keep }) => keep / minute / 1_440);
    expect(days('windows: [1m, 1h, 1d, 90d]')).to.deep.equal([10_000 / 1_440, 366, 366, 900]);
    expect(days('windows: [366d]')).to.deep.equal([3_660]);
    expect(days('windows: [1h, 1d], retention: { 1d: 5000d }')).to.deep.equal([366, 5_000]);
  });

  it('are kept for as long as they say, up to a century', () => {
    const { levels } = define('windows: [1m, 1h, 1d], retention: { 1m: 7d, 1d: 36525d }');
    expect(levels.map(({ keep }) => keep / minute)).to.deep.equal([7 * 1_440, 366 * 1_440, 36_525 * 1_440]);
  });

  it('are made anew when what is stored would be different, and only then', () => {
    const { hash } = define('windows: [1m]');
    const same = ['windows: [1m], sliding: [5m]', 'windows: [1m], retention: { 1m: 1h }', 'windows: [1m], functions: [min, avg]'];
    const other = [
      'windows: [5m]',
      'windows: [1m], time: t',
      'windows: [1m], functions: [sum, p50]',
      'windows: [1m], by: []',
      'windows: [1m], of: changes',
    ];
    const hashWith = (members: string): string => {
      const given = new Set([...members.matchAll(/(\w+):/g)].map(([, name]) => name));
      const rest = ['by: [chain]', 'of: rows', 'functions: [sum]'].filter((member) => !given.has(member.split(':')[0]));
      return definitionsOf(
        parseCatalog(`aggregates: { a: { table: public.t, value: v, ${[members, ...rest].join(', ')} } }`, 'catalog.yaml'),
      ).get('a')!.hash;
    };
    for (const members of same) expect(hashWith(members), members).to.equal(hash);
    for (const members of other) expect(hashWith(members), members).to.not.equal(hash);
  });

  it('are refused when their windows do not fit together, with what does not', () => {
    expect(faultsWith('windows: [1m, 90s, 1h, 7d]')).to.deep.equal(['windows has 90s, which is no multiple of the next shorter one, 1m']);
    expect(faultsWith('windows: [1m, 1d, 366d]')).to.deep.equal([
      'windows has 1d, which is 1,440 times the next shorter one, 1m; of rows at most 400 times, so that corrections stay quick: add a size between them',
    ]);
    expect(define('windows: [1m, 1d]', 'changes').levels.length).to.equal(2);
    expect(define('windows: [1m, 400m]').levels.length).to.equal(2);
    expect(faultsWith('windows: [1m, 60s, 400d]')).to.deep.equal([
      'windows[1] is 60s, which is as long as 1m',
      'windows[2] is 400d, but windows are 366 days long at most',
    ]);
    expect(faultsWith('windows: [1m], sliding: [5m, 90s, 30d]')).to.deep.equal([
      'sliding[1] is 90s, which is no multiple of 1m, the shortest size here: sliding windows are made of those',
      'sliding[2] is 30d, which is more than 20,000 times 1m, the shortest size here: sliding windows are made of those',
    ]);
    expect(faultsWith('windows: [1m, 1h], sliding: [24h], retention: { 1m: 2h, 1h: 1m, 1d: 1d, 5m: soon }')).to.deep.equal([
      'retention → 5m is "soon", but must be a duration like 30s, 5m, 1h or 1d',
    ]);
    expect(faultsWith('windows: [1m, 1h], sliding: [24h], retention: { 1m: 2h, 1h: 1m, 5m: 40000d }')).to.deep.equal([
      'retention → 5m is none of the windows; did you mean 1m?',
      'retention → 1m is 2h, but must be at least 1d: sliding windows need it',
      'retention → 1h is 1m, but must be at least 1h: the window itself',
    ]);
    expect(faultsWith('windows: [1m], retention: { 1m: 40000d }')).to.deep.equal([
      'retention → 1m is 40000d, but must be a duration like 30s, 5m, 1h or 2d, of 100 years at most',
    ]);
  });

  it('are refused on tables and columns that the log does not have', () => {
    const on = (table: string, more = ''): readonly string[] =>
      faultsOf(`${more}\naggregates:\n  a: { table: ${table}, by: [b], value: v, time: t, of: rows, windows: [1m], functions: [sum] }`);
    expect(on('headwater.alert_history').join()).to.match(/table is headwater.alert_history, which is one of Headwater's own tables$/);
    expect(on('pg_catalog.pg_class').join()).to.match(/which is a table of the system, and those are never captured$/);
    expect(on('public.t', 'others: false').join()).to.match(/which is not captured: others is false, and tables does not name it$/);
    expect(on('public.t', 'others: false\ntables: { public.t: {} }')).to.deep.equal([]);
    expect(on('public.t', 'tables: { public.t: { exclude: [b, v, t] } }').map((fault) => fault.split('→ ').at(-1))).to.deep.equal([
      'by is b, which exclude keeps out of the log',
      'value is v, which exclude keeps out of the log',
      'time is t, which exclude keeps out of the log',
    ]);
  });

  it('of the DeFi catalogue can be used', () => {
    expect(definitionsOf(defiCatalog()).get('price')).to.deep.include({ table: 'public.prices', by: ['token_id'], percentiles: true });
  });
});
