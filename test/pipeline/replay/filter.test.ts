import { expect } from 'chai';
import fc from 'fast-check';
import type { LogEvent } from '../../../pipeline/log/event-log.ts';
import { createFilter, type FilterParts } from '../../../pipeline/replay/filter.ts';
import { rowCondition, type RowCondition } from '../../../pipeline/replay/row-condition.ts';
import { HeadwaterError } from '../../../pipeline/runtime/errors.ts';
import { rowEvent, tickEvent, type RowEventFields } from '../../support/row-events.ts';
import { eventsOf, schemaEvent } from './support/replay-log.ts';

const prices = { schema: 'public', table: 'prices' };

function at(seq: number, op: string, fields: RowEventFields): LogEvent {
  return { seq, ...rowEvent(seq, op, fields) };
}

/** A log of what is known of the table's columns, and since when. */
function conditionOn(
  where: string,
  ...schemas: readonly (readonly [seq: number, columns: Readonly<Record<string, string>>])[]
): Promise<RowCondition> {
  const events = schemas.map(([seq, columns]) => ({ seq, ...schemaEvent(seq, 'prices', columns) }));
  const nextOf = (_: string, from: number): Promise<LogEvent | undefined> => Promise.resolve(events.find(({ seq }) => seq >= from));
  return rowCondition({ nextOf }, 'ev', prices, where, 1_000);
}

async function passing(where: string, events: readonly LogEvent[], columns: Readonly<Record<string, string>>): Promise<readonly number[]> {
  const condition = await conditionOn(where, [1, columns]);
  const filter = createFilter({ subject: 'ev', tables: [prices], where: new Map([['public.prices', condition]]) });
  return events.filter((event) => filter.matches(event)).map(({ seq }) => seq);
}

describe('the filter of a replay', () => {
  const all = eventsOf('ev', 2_000);
  const seqs = (parts: Omit<FilterParts, 'subject'>): readonly number[] => {
    const filter = createFilter({ subject: 'ev', ...parts });
    return all.filter((event) => filter.matches(event)).map(({ seq }) => seq);
  };
  const eventOf = ({ data }: LogEvent): { op?: string; table?: string; key?: Record<string, unknown> } =>
    JSON.parse(Buffer.from(data).toString('utf8')) as object;
  const wanted = (keeps: (event: ReturnType<typeof eventOf>, subject: string) => boolean): readonly number[] =>
    all.filter((event) => keeps(eventOf(event), event.subject)).map(({ seq }) => seq);

  it('lets all of the log through, ticks too unless they are left out', () => {
    expect(seqs({})).to.have.length(2_000);
    expect(seqs({ withoutTicks: true })).to.deep.equal(wanted((_, subject) => subject !== 'ev._tick'));
  });

  it('asks the server for no more than the tables and operations, and for ticks to move on by', () => {
    const { subjects } = createFilter({ subject: 'ev', tables: [prices, { schema: 'a.b', table: 'c' }], ops: ['insert', 'read'] });
    expect(subjects).to.deep.equal([
      'ev.public.prices.insert',
      'ev.public.prices.read',
      'ev.a%2Eb.c.insert',
      'ev.a%2Eb.c.read',
      'ev._tick',
    ]);
  });

  it('knows a table called like an operation, and its columns, from rows', () => {
    const filter = createFilter({ subject: 'ev', ops: ['insert'] });
    expect(filter.matches({ seq: 1, ...schemaEvent(1, 'insert', { id: 'text' }) })).to.equal(false);
    const row = rowEvent(2, 'insert', { schema: '_schema', table: 't', after: {} });
    expect(filter.matches({ seq: 2, ...row })).to.equal(true);
  });

  it('finds rows by key: of one column as it is or encoded, of several joined, and by the key of before', () => {
    expect(seqs({ keys: ['base:0x4'] }))
      .to.deep.equal(wanted(({ key }) => key?.['token_id'] === 'base:0x4'))
      .and.to.have.length.greaterThan(10);
    expect(seqs({ keys: ['base%3A0x8', '49:1'] })).to.deep.equal(
      wanted(({ key = {} }) => key['token_id'] === 'base:0x8' || (key['id'] === '49' && key['line'] === 1)),
    );
    const moved = at(1, 'update', { key: { id: 'new' }, before: { id: 'old' }, after: { id: 'new' } });
    for (const key of ['new', 'old']) expect(createFilter({ subject: 'ev', keys: [key] }).matches(moved), key).to.equal(true);
    expect(createFilter({ subject: 'ev', keys: ['ne'] }).matches(moved)).to.equal(false);
    const odd = at(2, 'insert', { key: { id: 'a "b"\n%é' }, after: {} });
    expect(createFilter({ subject: 'ev', keys: [encodeURIComponent('a "b"\n%é')] }).matches(odd)).to.equal(true);
  });

  describe('with a condition', () => {
    const columns = { id: 'bigint', price: 'numeric(20,2)', chain: 'text', note: 'text', doc: 'jsonb' };

    it('compares as the columns do, and sees rows that no longer meet it', async () => {
      const events = [
        at(1, 'insert', { after: { id: '9007199254740993', price: '10.10', chain: 'base' } }),
        at(2, 'insert', { after: { id: '9007199254740992', price: '9.99', chain: 'base' } }),
        at(3, 'update', { after: { id: '1', price: '1', chain: 'x' }, before: { id: '9007199254740993', price: '1', chain: 'x' } }),
        at(4, 'truncate', {}),
        { seq: 5, ...tickEvent(5) },
      ];
      expect(await passing('id > 9007199254740992', events, columns)).to.deep.equal([1, 3, 4]);
      expect(await passing('price > 9.995', events, columns)).to.deep.equal([1, 4]);
    });

    it('lets through what lacks a value that would decide, and counts it', async () => {
      const condition = await conditionOn('chain = "base" AND note LIKE "x%"', [1, columns]);
      const filter = createFilter({ subject: 'ev', tables: [prices], where: new Map([['public.prices', condition]]) });
      const row = (chain: string, rest: RowEventFields = {}): LogEvent =>
        at(7, 'update', { after: { chain }, unchanged: ['note'], ...rest });
      expect([filter.matches(row('base')), filter.undecided]).to.deep.equal([true, 1]);
      expect([filter.matches(row('optimism')), filter.undecided]).to.deep.equal([false, 1]);
      expect([filter.matches(row('base', { before: { chain: 'base', note: 'xy' } })), filter.undecided]).to.deep.equal([true, 1]);
      expect([filter.matches(at(8, 'delete', { before: { id: '1' } })), filter.undecided]).to.deep.equal([true, 2]);
      expect([filter.matches(at(9, 'delete', { before: { chain: 'x', note: 'x' } })), filter.undecided]).to.deep.equal([false, 2]);
    });

    it('is read with the columns of its time', async () => {
      // As text "10" is before "9", as a number behind it.
      const condition = await conditionOn('price > "9"', [1, { price: 'text' }], [50, { price: 'bigint', note: 'text' }]);
      const row = { op: 'insert', after: { price: '10' } };
      expect([condition.judge(row, 10), condition.judge(row, 60), condition.judge(row, 20)]).to.deep.equal([false, true, false]);
      expect((await conditionOn('note = "x"', [1, { price: 'text' }], [50, { note: 'text' }])).typed).to.equal(true);
    });

    it('tells what is wrong and where, and takes any name when the log no longer has the columns', async () => {
      const error = await conditionOn('prize > 1 AND chain = 5', [1, columns]).catch((thrown: unknown) => thrown);
      expect(error).to.be.instanceOf(HeadwaterError).with.property('reaction', 'usage');
      expect((error as Error).message)
        .to.include('did you mean price?')
        .and.to.include('--where, at 23');
      expect((await conditionOn('prize > 1')).typed).to.equal(false);
    });

    it('lets the same events through as when each is parsed and judged', () => {
      const value = fc.constantFrom('base', 'ba', 'é', 'a"b', '5', 'null', '');
      const leaf = fc.oneof(
        fc
          .record({ field: fc.constantFrom('chain', 'note'), text: value })
          .map(({ field, text }) => `${field} = '${text.replaceAll("'", "''")}'`),
        fc.array(value, { minLength: 1, maxLength: 3 }).map((texts) => `chain IN (${texts.map((text) => `'${text}'`).join(', ')})`),
        fc.constantFrom('note IS NULL', "chain <> 'base'", 'doc IS NULL', 'price IS NULL'),
        fc.constantFrom('price > 5', 'price <= 5.0', 'price < 5.0000000000000000001', 'price BETWEEN -5 AND 10', 'price IN (5, 1e1)'),
      );
      const { where } = fc.letrec<{ where: string }>((tie) => ({
        where: fc.oneof(
          { depthSize: 'small' },
          leaf,
          fc.tuple(tie('where'), fc.constantFrom('AND', 'OR'), tie('where')).map(([a, op, b]) => `(${a} ${op} ${b})`),
          tie('where').map((inner) => `NOT (${inner})`),
        ),
      }));
      const row = fc.record(
        {
          // Of its own members, one is called like the column.
          doc: fc.constantFrom(null, { price: '7', chain: 'base' }, [{ price: 6 }]),
          chain: fc.option(value),
          note: fc.option(value),
          price: fc.constantFrom('1', '10', '5.00', '-5', '-5.01', '5.0000000000000000001', 'NaN', '1e1', 7, -0.5, null),
        },
        { requiredKeys: ['price'] },
      );
      const event = fc
        .record({
          op: fc.constantFrom('insert', 'update', 'delete'),
          after: row,
          before: fc.option(row),
          unchanged: fc.subarray(['note', 'chain']),
          jsonNull: fc.subarray(['doc']),
        })
        .map(({ op, after, before, unchanged, jsonNull }) =>
          at(3, op, {
            ...(op === 'delete' ? {} : { after: Object.fromEntries(Object.entries(after).filter(([name]) => !unchanged.includes(name))) }),
            ...(op === 'insert' ? {} : { before: before ?? { price: '1' } }),
            ...(op === 'delete' || unchanged.length === 0 ? {} : { unchanged }),
            ...(jsonNull.length === 0 ? {} : { jsonNull }),
          }),
        );
      return fc.assert(
        fc.asyncProperty(where, event, fc.boolean(), async (text, one, typed) => {
          const condition = await conditionOn(text, ...(typed ? [[1, columns] as const] : []));
          const quick = createFilter({ subject: 'ev', where: new Map([['public.prices', condition]]) });
          const verdict = condition.judge(JSON.parse(Buffer.from(one.data).toString('utf8')) as object, one.seq);
          expect([quick.matches(one), quick.undecided]).to.deep.equal([verdict !== false, verdict === undefined ? 1 : 0]);
        }),
        { numRuns: 2_000 },
      );
    });
  });
});
