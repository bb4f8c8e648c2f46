import { expect } from 'chai';
import fc from 'fast-check';
import { DependencyIndex, type ChangedRow, type TableChange } from '../../../gateway/query/dependencies.ts';
import type { Dependency } from '../../../gateway/query/model.ts';

interface Item {
  readonly id: number;
  readonly owner: string | null;
  readonly active: boolean;
}

const change = (seq: number, op: string, row: ChangedRow = {}, table = 'public.items'): TableChange => ({ seq, table, op, row: () => row });
const pinned = (columns: readonly string[], ...values: (readonly string[])[]): Dependency => ({
  table: 'public.items',
  pins: { columns, values },
});
const id = (...ids: number[]): Dependency => pinned(['id'], ...ids.map((each) => [String(each)]));

describe('queries: when what an answer depends on was last changed', () => {
  const items = fc.record({
    id: fc.integer({ min: 0, max: 3 }),
    owner: fc.constantFrom('ann', 'bob', 'a"b', null),
    active: fc.boolean(),
  });
  const changes = fc.array(
    fc.record({
      op: fc.constantFrom('insert', 'update', 'update', 'update', 'delete', 'read', 'truncate', 'schema'),
      before: items,
      after: items,
      table: fc.constantFrom('public.items', 'public.items', 'public.others'),
      ask: fc.boolean(),
    }),
    { minLength: 1, maxLength: 60, size: 'max' },
  );
  const dependencies = fc.oneof(
    fc.constant<Dependency>({ table: 'public.items' }),
    fc.array(fc.integer({ min: 0, max: 4 }), { minLength: 1, maxLength: 3 }).map((ids) => id(...ids)),
    fc
      .tuple(fc.constantFrom('ann', 'bob', 'a"b'), fc.integer({ min: 0, max: 3 }))
      .map(([owner, n]) => pinned(['id', 'owner'], [String(n), owner])),
    fc.boolean().map((active) => pinned(['active'], [String(active)])),
  );

  /** Which rows the change took out of what a dependency names, or put in. */
  function touches({ op, before, after }: { op: string; before: Item; after: Item }, { pins }: Dependency): boolean {
    if (!pins || op === 'truncate' || op === 'schema') return true;
    const rows = op === 'delete' ? [before] : op === 'update' ? [before, after] : [after];
    const matches = (row: Item): boolean =>
      pins.values.some((values) =>
        pins.columns.every((column, i) => String(row[column as keyof Item]) === values[i] && row[column as keyof Item] !== null),
      );
    return rows.some(matches);
  }

  for (const limits of [{}, { combinations: 2 }, { pinned: 1 }, { tables: 1 }]) {
    const bounded = Object.keys(limits).length > 0;
    it(`is never said to be earlier than it was${bounded ? `, with ${JSON.stringify(limits)}` : ', nor later once it has been asked about'}`, () => {
      fc.assert(
        fc.property(changes, fc.array(dependencies, { minLength: 1, maxLength: 4 }), fc.nat(5), (history, asked, floor) => {
          const index = new DependencyIndex(limits);
          index.reset(floor);
          if (!bounded) for (const dependency of asked) index.last(dependency);
          const last = asked.map(() => floor);
          history.forEach((event, i) => {
            const seq = floor + 1 + i;
            const { op, before, after, table, ask } = event;
            // REPLICA IDENTITY FULL.
            index.note(
              change(
                seq,
                op,
                { key: { id: after.id }, ...(op === 'update' || op === 'delete' ? { before: { ...before } } : {}), after: { ...after } },
                table,
              ),
            );
            asked.forEach((dependency, n) => {
              if (table === dependency.table && touches(event, dependency)) last[n] = seq;
              if (!ask) return;
              if (bounded) expect(index.last(dependency)).to.be.at.least(last[n]!);
              else expect(index.last(dependency)).to.equal(last[n]);
            });
          });
        }),
        { numRuns: 500 },
      );
    });
  }

  it('takes the key of an update without its old row for unchanged, and any other column for changed', () => {
    const index = new DependencyIndex();
    index.reset(0);
    const owner = pinned(['owner'], ['ann']);
    for (const dependency of [id(1), id(2), owner]) index.last(dependency);
    index.note(change(7, 'update', { key: { id: 1 }, after: { id: 1, owner: 'bob' } }));
    expect([id(1), id(2), owner].map((each) => index.last(each))).to.deep.equal([7, 0, 7]);
  });

  it('counts all rows as changed by an event that does not show the value, or that cannot be understood', () => {
    for (const row of [{ after: { owner: 'ann' } }, { after: { id: { a: 1 } } }, {}, undefined]) {
      const index = new DependencyIndex();
      index.reset(0);
      index.last(id(1));
      index.note({ seq: 3, table: 'public.items', op: 'insert', row: () => row });
      expect(index.last(id(1))).to.equal(3);
      index.note(change(4, 'insert', { after: { id: 2 } }));
      expect(index.last(id(1))).to.equal(3);
    }
    const index = new DependencyIndex();
    index.reset(0);
    index.last(id(1));
    index.note(change(3, 'something new', { after: { id: 2 } }));
    expect(index.last(id(1))).to.equal(3);
  });

  it('does not look into rows of tables of which nobody has asked for some', () => {
    const index = new DependencyIndex();
    index.reset(0);
    index.note({ seq: 1, table: 'public.items', op: 'insert', row: () => expect.fail('read') });
    expect(index.last({ table: 'public.items' })).to.equal(1);
  });

  it('tells long values apart', () => {
    const index = new DependencyIndex();
    index.reset(0);
    const long = 'x'.repeat(5_000);
    const owner = (text: string): Dependency => pinned(['owner'], [text]);
    for (const end of ['a', 'b']) index.last(owner(long + end));
    index.note(change(1, 'insert', { after: { owner: `${long}a` } }));
    expect([index.last(owner(`${long}a`)), index.last(owner(`${long}b`))]).to.deep.equal([1, 0]);
  });
});
