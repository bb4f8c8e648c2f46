import { expect } from 'chai';
import { cacheProcessor, type CacheEffects } from '../../../processors/cache/fold.ts';
import { defaultCatalog, unnamedEntry, type Catalog } from '../../../schemas/catalog.ts';
import type { NewEvent } from '../../../pipeline/log/event-log.ts';
import { rowEvent, tickEvent } from '../../support/row-events.ts';

function fold(events: readonly NewEvent[], catalog: Catalog = defaultCatalog()): CacheEffects {
  const processor = cacheProcessor(catalog);
  const effects = processor.begin();
  events.forEach((event, i) => processor.apply({ ...event, seq: i + 1 }, effects));
  return effects;
}

/** Keys of a table's rows → seq, or minus seq for a deleted one. */
function rowsOf({ tables }: CacheEffects, table = 'public.prices'): Record<string, number> {
  return Object.fromEntries([...(tables.get(table)?.rows ?? [])].map(([key, { seq, event }]) => [key, event ? seq : -seq]));
}

describe('cache fold', () => {
  it('keeps the last change of each row, with the log’s own bytes', () => {
    const events = [
      rowEvent(1, 'insert', { key: { id: 1 }, after: { id: 1, a: 'x' } }),
      rowEvent(2, 'read', { key: { id: 2 }, after: { id: 2 } }),
      rowEvent(3, 'update', { key: { id: 1 }, after: { id: 1, a: 'y' } }),
      rowEvent(4, 'delete', { key: { id: 2 }, before: { id: 2 } }),
    ];
    const effects = fold(events);
    expect(rowsOf(effects)).to.deep.equal({ 1: 3, 2: -4 });
    expect(effects.tables.get('public.prices')!.rows.get('1')!.event).to.equal(events[2]!.data);
  });

  it('moves a row whose key changes, judged by the key columns alone', () => {
    const effects = fold([
      rowEvent(1, 'insert', { key: { a: 1, b: 'x' }, after: { a: 1, b: 'x', c: 1 } }),
      rowEvent(2, 'update', { key: { a: 1, b: 'y' }, after: { a: 1, b: 'y', c: 1 }, before: { a: 1, b: 'x' } }),
      rowEvent(3, 'update', { key: { a: 1, b: 'y' }, after: { a: 1, b: 'y', c: 2 }, before: { a: 1, b: 'y', c: 1 } }),
    ]);
    expect(rowsOf(effects)).to.deep.equal({ '1:x': -2, '1:y': 3 });
  });

  it('is not deceived by text in values that looks like an envelope', () => {
    const trap = { before: { id: 9 }, key: { id: 8 } };
    const effects = fold([
      rowEvent(1, 'update', { key: { id: 1 }, after: { id: 1, j: trap, t: '","before":{"id":7},"x":"\\' } }),
      rowEvent(2, 'insert', { after: { key: { id: 5 }, t: ',"key":{"id":6}' } }),
    ]);
    expect(rowsOf(effects)).to.deep.equal({ 1: 1 });
  });

  it('names keys by their values: any text, numbers as written, in key order', () => {
    const long = 'ü'.repeat(400);
    const effects = fold([
      rowEvent(1, 'insert', { key: { z: 'ethereum:0xc02a', a: 1.5 }, after: {} }),
      rowEvent(2, 'insert', { key: { z: 'a"b\\c/ü %', a: true }, after: {} }),
      rowEvent(3, 'insert', { key: { id: long }, after: { id: long } }),
      rowEvent(4, 'insert', { key: { id: '' }, after: {} }),
    ]);
    expect(rowsOf(effects)).to.deep.equal({
      'ethereum%3A0xc02a:1.5': 1,
      'a%22b%5Cc%2F%C3%BC%20%25:true': 2,
      [encodeURIComponent(long)]: 3,
      '': 4,
    });
    const raw = `{"v":1,"id":"0000000000000001.00000001","type":"row","op":"insert","table":"public.prices","key":{"n":12345678901234567890.10},"after":{}}`;
    expect(rowsOf(fold([{ subject: 'ev.public.prices.insert', data: Buffer.from(raw) }]))).to.deep.equal({ '12345678901234567890.10': 1 });
  });

  it('forgets the rows of before a truncate, in this batch too', () => {
    const effects = fold([
      rowEvent(1, 'insert', { key: { id: 1 }, after: {} }),
      rowEvent(2, 'truncate'),
      rowEvent(3, 'insert', { key: { id: 2 }, after: {} }),
    ]);
    expect(rowsOf(effects)).to.deep.equal({ 2: 3 });
    expect(effects.tables.get('public.prices')!.truncated).to.equal(2);
  });

  it('leaves out what has no primary key, what the catalogue keeps out, and what is no row', () => {
    const catalog: Catalog = {
      ...defaultCatalog(),
      tables: new Map([['public.big', { ...unnamedEntry, channel: 'big', cache: false }]]),
      exclude: ['audit.*'],
    };
    const effects = fold(
      [
        rowEvent(1, 'insert', { table: 'keyless', after: { id: 1 } }),
        rowEvent(2, 'insert', { table: 'big', key: { id: 1 }, after: {} }),
        rowEvent(3, 'insert', { schema: 'audit', key: { id: 1 }, after: {} }),
        rowEvent(4, 'insert', { schema: 'headwater', table: 'api_keys', key: { id: 1 }, after: {} }),
        tickEvent(5),
        { subject: 'ev._schema.public.prices', data: Buffer.from('{"v":1}') },
        { subject: 'ev._message.a.b', data: Buffer.from('{}') },
        { subject: 'ev._mark.snapshot', data: Buffer.from('{}') },
      ],
      catalog,
    );
    expect([...effects.tables.keys()]).to.deep.equal([]);
    expect([...effects.uncached]).to.deep.equal([['public.keyless', 1]]);
  });

  it('leaves out a table that a backfill of all of it begins to copy as large, unless the catalogue wants it', () => {
    const mark = (data: object): NewEvent => ({
      subject: 'ev._mark.backfill',
      data: Buffer.from(JSON.stringify({ v: 1, id: 'x', type: 'mark', mark: 'backfill', data })),
    });
    const catalog: Catalog = {
      ...defaultCatalog(),
      tables: new Map([['public.wanted', { ...unnamedEntry, channel: 'wanted', cache: true }]]),
    };
    const begin = { phase: 'begin', large: true };
    const effects = fold(
      [
        mark({ ...begin, table: 'public.small', large: undefined }),
        mark({ ...begin, table: 'public.part', where: 'id > 5' }),
        mark({ ...begin, table: 'public.wanted' }),
        mark({ ...begin, table: 'public.big' }),
        mark({ ...begin, table: 'public.big' }),
        mark({ phase: 'end', table: 'public.other', rows: 5 }),
      ],
      catalog,
    );
    expect([...effects.uncached]).to.deep.equal([['public.big', 4]]);
  });

  it('tells tables apart whose names need encoding', () => {
    const effects = fold([rowEvent(1, 'insert', { schema: 'My schema', table: 'a.b*>', key: { id: 1 }, after: {} })]);
    expect([...effects.tables.keys()]).to.deep.equal(['My schema.a.b*>']);
  });

  for (const [what, event] of [
    ['no JSON', { subject: 'ev.public.prices.insert', data: Buffer.from('garbage') }],
    ['cut-off JSON', { subject: 'ev.public.prices.insert', data: Buffer.from('{"v":1,"id":"x","type":"row","op":"insert","key":{"id":1') }],
    ['a mark that is none', { subject: 'ev._mark.backfill', data: Buffer.from('{"data":3}') }],
    ['an unknown operation', rowEvent(1, 'merge', { key: { id: 1 }, after: {} })],
  ] as const) {
    it(`throws for ${what}, and leaves no trace`, () => {
      const processor = cacheProcessor(defaultCatalog());
      const effects = processor.begin();
      expect(() => processor.apply({ ...event, seq: 1 }, effects)).to.throw();
      expect(effects).to.deep.equal(processor.begin());
    });
  }
});
