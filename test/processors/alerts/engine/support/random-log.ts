import fc from 'fast-check';
import { ruleRow, type Row, type RuleFields, type TestEvent } from './log.ts';

/** Values of the numeric column: few, so that they meet the thresholds, and as text that equals another text. */
const numbers = ['-5', '0', '0.0', '9', '10', '10.00', '11', '20', '20.5', '1e1', '30', '40', '50', '-1'];
const texts = ['x', 'y', 'xy'];
const limits = [-1, 0, 10, 10.5, 20, 30];

const numeric = fc.constantFrom(...limits);

const plain: fc.Arbitrary<unknown> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ field: fc.constantFrom('a', 'b'), op: fc.constantFrom('gt', 'gte', 'lt', 'lte'), value: numeric }) },
  { weight: 2, arbitrary: fc.record({ field: fc.constantFrom('a', 'b'), op: fc.constantFrom('eq', 'ne'), value: numeric }) },
  fc.record({
    field: fc.constantFrom('a', 'b'),
    op: fc.constantFrom('in', 'nin'),
    value: fc.uniqueArray(numeric, { minLength: 1, maxLength: 3 }),
  }),
  fc.tuple(numeric, numeric).map(([a, b]) => ({ field: 'a', op: 'between', value: [Math.min(a, b), Math.max(a, b)] })),
  fc.record({ field: fc.constant('c'), op: fc.constantFrom('eq', 'ne', 'gt', 'lte'), value: fc.constantFrom(...texts) }),
  fc.record({ field: fc.constant('c'), op: fc.constantFrom('like', 'ilike'), value: fc.constantFrom('x%', '%Y', '_') }),
  fc.record({ field: fc.constantFrom('a', 'c'), op: fc.constant('is_null'), value: fc.boolean() }),
);

const timely: fc.Arbitrary<unknown> = fc.oneof(
  fc.record({ absent_for: fc.constantFrom('1s', '2s', '5s') }),
  fc.record({
    field: fc.constant('a'),
    change: fc.constantFrom('1s', '2s', '4s'),
    op: fc.constantFrom('gt', 'gte', 'lt', 'lte', 'eq', 'ne'),
    value: fc.constantFrom(-50, -10, 0, 10, 100),
  }),
);

const momentary: fc.Arbitrary<unknown> = fc.oneof(
  fc.record({ field: fc.constantFrom('a', 'b'), op: fc.constantFrom('crosses_above', 'crosses_below'), value: numeric }),
  fc.record({ field: fc.constantFrom('a', 'c'), op: fc.constant('changed') }),
);

const level: fc.Arbitrary<unknown> = fc.letrec((tie) => ({
  node: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    { weight: 6, arbitrary: plain },
    { weight: 2, arbitrary: timely },
    { weight: 1, arbitrary: fc.record({ and: fc.array(tie('node'), { minLength: 1, maxLength: 3 }) }) },
    { weight: 1, arbitrary: fc.record({ or: fc.array(tie('node'), { minLength: 1, maxLength: 3 }) }) },
    { weight: 1, arbitrary: fc.record({ not: tie('node') }) },
  ),
})).node;

const edge: fc.Arbitrary<unknown> = fc.oneof(
  { weight: 3, arbitrary: momentary },
  fc.tuple(momentary, level).map((and) => ({ and })),
  fc.tuple(momentary, level).map((or) => ({ or })),
  fc.tuple(momentary, momentary).map((or) => ({ or })),
);

const match: fc.Arbitrary<Row> = fc.oneof(
  { weight: 3, arbitrary: fc.constant({}) },
  fc.uniqueArray(fc.constantFrom(...texts), { minLength: 1, maxLength: 2 }).map((c) => ({ c })),
  fc.constantFrom(1, 2, 3).map((id) => ({ id: [id] })),
  fc.constantFrom(1, 2).map((b) => ({ b: [b], c: ['x', 'y'] })),
);

const seconds = fc.constantFrom(0, 0, 1, 2);

const body: fc.Arbitrary<Partial<RuleFields>> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      condition: level,
      clear_condition: fc.oneof({ weight: 3, arbitrary: fc.constant(null) }, level),
      for_seconds: seconds,
      keep_firing_for_seconds: seconds,
      match,
      group_by: fc.oneof({ weight: 5, arbitrary: fc.constant(null) }, fc.constantFrom(['c'], ['c', 'b'])),
    }),
  },
  fc.record({ condition: edge, match, group_by: fc.oneof({ weight: 5, arbitrary: fc.constant(null) }, fc.constant(['c'])) }),
);

/** What happens next; rules are numbered, and made into events with the right revisions. */
type Step =
  | { readonly do: 'row'; readonly event: TestEvent; readonly wait: number }
  | { readonly do: 'rule'; readonly rule: number; readonly body: Partial<RuleFields>; readonly enabled: boolean; readonly wait: number }
  | { readonly do: 'repeat'; readonly rule: number; readonly wait: number }
  | { readonly do: 'remove'; readonly rule: number; readonly wait: number };

const wait = fc.constantFrom(0, 0.000001, 0.5, 1, 1, 2, 3, -0.5);
const id = fc.constantFrom(1, 2, 3);

/** Columns can be null, or missing as when Postgres does not send them again. */
const values: fc.Arbitrary<Row> = fc
  .record({
    a: fc.option(fc.constantFrom(...numbers), { freq: 12 }),
    b: fc.option(fc.constantFrom(0, 1, 2, 10, 20, 25), { freq: 12 }),
    c: fc.option(fc.constantFrom(...texts), { freq: 12 }),
  })
  .chain((row) =>
    fc
      .subarray(Object.keys(row), { minLength: 2 })
      .map((columns) => Object.fromEntries(Object.entries(row).filter(([column]) => columns.includes(column)))),
  );

const change: fc.Arbitrary<TestEvent> = fc
  .tuple(
    id,
    values,
    fc.constantFrom('insert', 'update', 'update', 'update', 'read'),
    fc.option(values, { freq: 3 }),
    fc.option(id, { freq: 12 }),
  )
  .map(([n, row, op, before, old]) => ({
    kind: 'row' as const,
    at: 0,
    op: op as 'insert',
    key: { id: n },
    after: { id: n, ...row },
    ...(op === 'update' && (before ?? old) !== null && { before: { id: old ?? n, ...within(before, row) } }),
  }));

/** An old row has no columns that the new one has not. */
function within(before: Row | null, after: Row): Row {
  return Object.fromEntries(Object.entries(before ?? {}).filter(([column]) => column in after));
}

const happening: fc.Arbitrary<TestEvent> = fc.oneof(
  { weight: 14, arbitrary: change },
  { weight: 5, arbitrary: fc.constant({ kind: 'tick' as const, at: 0 }) },
  { weight: 1, arbitrary: id.map((n) => ({ kind: 'row' as const, at: 0, op: 'delete' as const, key: { id: n }, before: { id: n } })) },
  {
    weight: 1,
    arbitrary: fc
      .constantFrom('numeric', 'bigint')
      .map((a) => ({ kind: 'schema' as const, at: 0, columns: { id: 'integer', a, b: 'integer', c: 'text' } })),
  },
  {
    weight: 1,
    arbitrary: fc
      .constantFrom(0, 1, 2, 3)
      .map((n) => (n === 0 ? { kind: 'row' as const, at: 0, op: 'truncate' as const } : { kind: 'tick' as const, at: 0 })),
  },
);

const mostRules = 40;

const step: fc.Arbitrary<Step> = fc.oneof<fc.MaybeWeightedArbitrary<Step>[]>(
  { weight: 12, arbitrary: fc.record({ do: fc.constant('row' as const), event: happening, wait }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('rule' as const),
      rule: fc.nat(mostRules - 1),
      body,
      enabled: fc.integer({ min: 0, max: 5 }).map((n) => n > 0),
      wait,
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('repeat' as const), rule: fc.nat(mostRules - 1), wait }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('remove' as const), rule: fc.nat(mostRules - 1), wait }) },
);

/** A log of rows and rules, in which rules begin, change and go. */
export const randomLog: fc.Arbitrary<readonly TestEvent[]> = fc
  .tuple(
    fc.boolean(),
    fc.array(body, { minLength: 1, maxLength: mostRules, size: 'max' }),
    fc.array(step, { minLength: 5, maxLength: 60, size: 'max' }),
  )
  .map(([typed, first, steps]) => {
    const schema: TestEvent = { kind: 'schema', at: 0, columns: { id: 'integer', a: 'numeric', b: 'integer', c: 'text' } };
    const begin: Step[] = first.map((one, rule) => ({ do: 'rule', rule, body: one, enabled: true, wait: 0 }));
    return [...(typed ? [schema] : []), ...eventsOf([...begin, ...steps])];
  });

function eventsOf(steps: readonly Step[]): readonly TestEvent[] {
  const rows = new Map<string, Row>();
  const revisions = new Map<string, number>();
  const table = 'headwater.alert_rules';
  let at = 0;
  const events: TestEvent[] = [];
  for (const one of steps) {
    at += one.wait;
    if (one.do === 'row') {
      events.push({ ...one.event, at });
      continue;
    }
    const rule = `r${String(one.rule).padStart(2, '0')}`;
    const key = { id: rule };
    if (one.do === 'remove') {
      if (rows.delete(rule)) events.push({ kind: 'row', at, table, op: 'delete', key, before: key });
    } else if (one.do === 'repeat') {
      if (rows.has(rule)) events.push({ kind: 'row', at, table, op: 'read', key, after: rows.get(rule)! });
    } else {
      const revision = (revisions.get(rule) ?? 0) + 1;
      revisions.set(rule, revision);
      const after = ruleRow({ id: rule, ...one.body, revision, enabled: one.enabled });
      events.push({ kind: 'row', at, table, op: rows.has(rule) ? 'update' : 'insert', key, after });
      rows.set(rule, after);
    }
  }
  return events;
}
