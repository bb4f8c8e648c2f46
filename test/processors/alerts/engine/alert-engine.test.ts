import { expect } from 'chai';
import type { LogEvent } from '../../../../pipeline/log/event-log.ts';
import { HeadwaterError } from '../../../../pipeline/runtime/errors.ts';
import { AlertEngine } from '../../../../processors/alerts/engine/alert-engine.ts';
import { noEffects, type AlertEffects } from '../../../../processors/alerts/engine/saved.ts';
import { logEvent, logOf, ruleEvent, type Row, type RuleFields, type TestEvent } from './support/log.ts';
import { run, runInterrupted, type Store } from './support/run.ts';

const schema: TestEvent = { kind: 'schema', at: 0, columns: { id: 'integer', a: 'numeric', b: 'integer', c: 'text' } };
const rule = (fields: Partial<RuleFields>): TestEvent => ruleEvent(0, 'insert', { id: 'r', ...fields });
const tick = (at: number): TestEvent => ({ kind: 'tick', at });
const row = (at: number, after: Row, op: 'insert' | 'update' | 'read' = 'update', id = 1): TestEvent => ({
  kind: 'row',
  at,
  op,
  key: { id },
  after: { id, ...after },
});

/** `<second> <rule> <entity> firing|resolved <reason>` of each transition. */
function told(events: readonly TestEvent[]): string[] {
  // As with many rules.
  const engine = new AlertEngine({ fewRules: 0 });
  const effects = noEffects();
  return logOf(events).flatMap((event, i) => {
    engine.apply(event, effects);
    return effects.transitions.splice(0).map(({ alert }) => {
      const what = alert.state === 'firing' ? 'firing' : `resolved ${alert.reason}`;
      return `${events[i]!.at} ${alert.ruleId} ${Object.values(alert.entity).join(':')} ${what}`;
    });
  });
}

function textOf(effects: AlertEffects): string {
  return JSON.stringify(effects, (_, part: unknown) => (part instanceof Map ? [...(part as ReadonlyMap<string, unknown>)] : part));
}

describe('alert engine', () => {
  describe('reference timelines (5)', () => {
    const minutely = (values: readonly number[]): string[] =>
      told([
        schema,
        rule({ for_seconds: 60, keep_firing_for_seconds: 60 }),
        ...values.map((value, i) => row(60 * (i + 1), { a: String(value) })),
      ]);

    it('75 85 70 70 10 10: pending, then firing until it has been false for a minute', () => {
      expect(minutely([75, 85, 70, 70, 10, 10])).to.deep.equal(['120 r 1 firing', '360 r 1 resolved condition']);
    });

    it('75 10 never fires', () => {
      expect(minutely([75, 10, 10])).to.deep.equal([]);
    });

    it('fires and is resolved at the first event of any kind when the time is up (1.2)', () => {
      const events = [
        rule({ for_seconds: 60, keep_firing_for_seconds: 60 }),
        row(1, { a: '75' }),
        tick(60),
        tick(61.5),
        row(62, { a: '1' }),
      ];
      expect(told([schema, ...events, tick(121), tick(122)])).to.deep.equal(['61.5 r 1 firing', '122 r 1 resolved condition']);
    });

    it('holds while unknown: does not fire, and does not start anew (5.2, 5.3)', () => {
      const events = [
        rule({ for_seconds: 60 }),
        row(0, { a: '75' }),
        row(30, { a: null }),
        tick(90),
        row(91, { a: '75' }),
        row(92, { a: null }),
      ];
      expect(told([schema, ...events, tick(200), row(201, { a: '5' })])).to.deep.equal(['91 r 1 firing', '201 r 1 resolved condition']);
    });

    it('clears by another threshold when there is one', () => {
      const clear_condition = { field: 'a', op: 'lt', value: 40 };
      expect(told([schema, rule({ clear_condition }), ...[60, 45, 39, 60].map((a, i) => row(i, { a: String(a) }))])).to.deep.equal([
        '0 r 1 firing',
        '2 r 1 resolved condition',
        '3 r 1 firing',
      ]);
    });

    it('opens again at the next event what was cleared although it still holds (5.4)', () => {
      const clear_condition = { field: 'a', op: 'gt', value: 90 };
      expect(told([schema, rule({ clear_condition }), row(1, { a: '95' }), tick(2), tick(3)])).to.deep.equal([
        '1 r 1 firing',
        '2 r 1 resolved condition',
        '3 r 1 firing',
      ]);
    });
  });

  describe('time (1)', () => {
    it('does not go back with an event that is older than its neighbour', () => {
      const events = [rule({ for_seconds: 10 }), row(20, { a: '60' }), tick(5), tick(29.999999), tick(30)];
      expect(told([schema, ...events])).to.deep.equal(['30 r 1 firing']);
    });

    it('moves with events of tables that no rule is about', () => {
      const other: TestEvent = { ...row(11, {}), table: 'public.other' };
      expect(told([schema, rule({ for_seconds: 10 }), row(1, { a: '60' }), other])).to.deep.equal(['11 r 1 firing']);
    });
  });

  describe('what a rule knows (3)', () => {
    const crosses = { condition: { field: 'a', op: 'crosses_above', value: 50 } };

    it('crosses from what came after the rule, or from the event’s own old row', () => {
      const before = { ...row(3, { a: '60' }, 'update', 2), before: { id: 2, a: '40' } };
      const events = [row(0, { a: '40' }), rule(crosses), row(1, { a: '60' }), row(2, { a: '40' }), row(2.5, { a: '60' }), before];
      expect(told([schema, ...events])).to.deep.equal(['2.5 r 1 firing', '3 r 2 firing']);
    });

    it('takes a snapshot for values, not for edges; a level that is true in it fires', () => {
      const both = [rule(crosses), ruleEvent(0, 'insert', { id: 'level' })];
      const events = [row(1, { a: '40' }, 'read'), row(2, { a: '60' }, 'read'), row(3, { a: '40' }), row(4, { a: '60' })];
      expect(told([schema, ...both, ...events])).to.deep.equal([
        '2 level 1 firing',
        '3 level 1 resolved condition',
        '4 level 1 firing',
        '4 r 1 firing',
      ]);
    });

    it('keeps the value of a column that is not sent again', () => {
      const condition = {
        and: [
          { field: 'a', op: 'gt', value: 50 },
          { field: 'c', op: 'eq', value: 'x' },
        ],
      };
      expect(told([schema, rule({ condition }), row(1, { a: '40', c: 'x' }), row(2, { a: '60' })])).to.deep.equal(['2 r 1 firing']);
    });

    it('learns what an older rule knew already: it is not true any more, and has to begin anew', () => {
      const condition = {
        or: [
          { field: 'a', op: 'gt', value: 50 },
          { field: 'b', op: 'gt', value: 5 },
        ],
      };
      // So many that they are found by their thresholds.
      const young = Array.from({ length: 40 }, (_, i) => ruleEvent(2, 'insert', { id: `y${i + 10}`, condition, for_seconds: 10 }));
      const old = rule({
        condition: {
          and: [
            { field: 'a', op: 'lt', value: 0 },
            { field: 'b', op: 'lt', value: 0 },
          ],
        },
      });
      const events = [old, row(1, { a: '1', b: 1 }), ...young, row(3, { a: '60' }), row(4, { a: '1' }), row(5, { a: '1', b: 1 })];
      expect(told([schema, ...events, row(6, { a: '60' }), tick(15), tick(16)])).to.deep.equal(
        young.map(({ key }) => `16 ${String(key!['id'])} 1 firing`),
      );
    });

    it('compares decimals exactly, beyond what doubles tell apart', () => {
      const condition = { field: 'a', op: 'gt', value: '0.1000000000000000000001' };
      const values = ['0.1000000000000000000001', '0.10000000000000000000011', '0.1', '1e400', '-1e400'];
      expect(told([schema, rule({ condition }), ...values.map((a, i) => row(i, { a }))])).to.deep.equal([
        '1 r 1 firing',
        '2 r 1 resolved condition',
        '3 r 1 firing',
        '4 r 1 resolved condition',
      ]);
    });

    it('forgets values when their column gets another type', () => {
      const retyped: TestEvent = { kind: 'schema', at: 3, columns: { id: 'integer', a: 'text', c: 'text' } };
      const condition = {
        or: [
          { field: 'c', op: 'eq', value: 'x' },
          { field: 'a', op: 'changed' },
        ],
      };
      expect(
        told([schema, rule({ condition: { field: 'a', op: 'changed' } }), row(1, { a: '1' }), retyped, row(4, { a: '2' })]),
      ).to.deep.equal([]);
      expect(told([schema, rule({ condition }), row(1, { a: '1', c: 'y' }), row(4, { a: '1.0' })])).to.deep.equal([]);
    });
  });

  it('looks again when a schema event makes unknown whether the row is one that the rule is for (4.2)', () => {
    const fields = { match: { c: ['x'] }, clear_condition: { field: 'a', op: 'lt', value: 0 }, keep_firing_for_seconds: 5 };
    const retyped: TestEvent = { kind: 'schema', at: 3, columns: { id: 'integer', a: 'numeric', b: 'integer', c: 'character varying' } };
    const events = [
      rule(fields),
      row(1, { a: '60', c: 'x' }),
      row(2, { a: '60', c: 'y' }),
      retyped,
      row(4, { a: '60', c: 'y' }),
      tick(8),
      tick(9),
    ];
    expect(told([schema, ...events])).to.deep.equal(['1 r 1 firing', '9 r 1 resolved condition']);
  });

  describe('absence and percentage change (3.5, 4)', () => {
    it('misses an entity at the first tick after the time, and is content with its next event', () => {
      const events = [
        rule({ condition: { absent_for: '10s' } }),
        tick(50),
        row(60, { a: '1' }),
        tick(69),
        tick(71),
        tick(90),
        row(95, { a: '1' }),
      ];
      expect(told([schema, ...events])).to.deep.equal(['71 r 1 firing', '95 r 1 resolved condition']);
    });

    it('sees a change against the value of then, also when nothing but time passes', () => {
      const condition = { field: 'a', change: '60s', op: 'gte', value: 10 };
      const events = [
        row(0, { a: '100' }),
        row(30, { a: '110' }),
        row(59, { a: '109.999999999999999999' }),
        row(60, { a: '110' }),
        tick(89),
        tick(90),
      ];
      expect(told([schema, rule({ condition }), ...events])).to.deep.equal(['60 r 1 firing', '90 r 1 resolved condition']);
    });

    it('knows nothing of before the rule', () => {
      const condition = { field: 'a', change: '60s', op: 'lt', value: -10 };
      expect(
        told([schema, row(0, { a: '100' }), { ...rule({ condition }), at: 1 }, row(61, { a: '50' }), row(121, { a: '40' })]),
      ).to.deep.equal(['121 r 1 firing']);
    });
  });

  describe('entities that end (2)', () => {
    const ends: readonly [string, TestEvent][] = [
      ['a delete', { kind: 'row', at: 2, op: 'delete', key: { id: 1 }, before: { id: 1 } }],
      ['a truncate', { kind: 'row', at: 2, op: 'truncate' }],
      ['another key', { ...row(2, { a: '1' }, 'update', 9), before: { id: 1 } }],
    ];
    for (const [name, end] of ends) {
      it(`resolves at ${name}, and starts with nothing`, () => {
        const events = [rule({}), ruleEvent(0, 'insert', { id: 's', for_seconds: 5 }), row(1, { a: '60' }), end, tick(9)];
        expect(told([schema, ...events])).to.deep.equal(['1 r 1 firing', '2 r 1 resolved entity_deleted']);
      });
    }

    it('of columns of its own, an entity outlives its rows, and other rows than the match’s are none of its', () => {
      const fields = { group_by: ['c'], match: { b: [1] } };
      const gone: TestEvent = { kind: 'row', at: 3, op: 'delete', key: { id: 1 }, before: { id: 1 } };
      const events = [
        rule(fields),
        row(1, { a: '60', b: 1, c: 'x' }),
        row(2, { a: '1', b: 2, c: 'x' }),
        gone,
        row(4, { a: '1', b: 1, c: 'x' }, 'insert', 7),
      ];
      expect(told([schema, ...events])).to.deep.equal(['1 r x firing', '4 r x resolved condition']);
    });

    it('resolves what no longer matches', () => {
      const events = [rule({ match: { c: ['x'] }, clear_condition: { field: 'a', op: 'lt', value: 0 } }), row(1, { a: '60', c: 'x' })];
      expect(told([schema, ...events, row(2, { a: '60', c: 'y' })])).to.deep.equal(['1 r 1 firing', '2 r 1 resolved condition']);
    });
  });

  describe('rules that come and go (8)', () => {
    const firing = [schema, rule({}), row(1, { a: '60' })];
    const cases: readonly [string, TestEvent, string[]][] = [
      ['edited', ruleEvent(2, 'update', { id: 'r', revision: 2 }), ['1 r 1 firing', '2 r 1 resolved rule_edited', '3 r 1 firing']],
      ['disabled', ruleEvent(2, 'update', { id: 'r', revision: 2, enabled: false }), ['1 r 1 firing', '2 r 1 resolved rule_disabled']],
      ['deleted', ruleEvent(2, 'delete', { id: 'r' }), ['1 r 1 firing', '2 r 1 resolved rule_deleted']],
      ['read again', ruleEvent(2, 'read', { id: 'r' }), ['1 r 1 firing']],
      [
        'disabled with a condition that is none',
        ruleEvent(2, 'update', { id: 'r', revision: 2, enabled: false, condition: 7 }),
        ['1 r 1 firing', '2 r 1 resolved rule_disabled'],
      ],
    ];
    for (const [name, event, expected] of cases) {
      it(name, () => {
        expect(told([...firing, event, row(3, { a: '61' })])).to.deep.equal(expected);
      });
    }

    it('takes columns that were not sent again from the revision before, but not from an older one', () => {
      const partial = (revision: number): TestEvent => {
        const { condition: _, ...after } = ruleEvent(2, 'update', { id: 'r', revision }).after as Record<string, unknown>;
        return { ...ruleEvent(2, 'update', { id: 'r' }), after };
      };
      expect(told([...firing, partial(2), row(3, { a: '61' })])).to.deep.equal([
        '1 r 1 firing',
        '2 r 1 resolved rule_edited',
        '3 r 1 firing',
      ]);
      expect(() => told([...firing, partial(3)])).to.throw(HeadwaterError, 'condition is missing');
    });

    it('needs nothing but the events: ids are the same in every replay', () => {
      const events = [...firing, row(2, { a: '1' }), row(3, { a: '70' })];
      expect(run(events)).to.deep.equal(run(events)).and.have.length(3);
      expect(run(events)[0]).to.match(/firing 7e7b2746-0715-5b1c-a1c3-96b5ebe0cba8$/);
    });
  });

  describe('what is refused leaves no trace (8.3, 8.5)', () => {
    const events = [
      schema,
      rule({}),
      rule({ id: 'w', for_seconds: 5, condition: { field: 'a', change: '1s', op: 'gt', value: 0 } }),
      row(1, { a: '60' }),
    ];
    const bytes = (subject: string, text: string): LogEvent => ({ seq: 5, subject, data: Buffer.from(text) });
    const at = '"at":"2026-11-22T09:00:00Z"';
    const refused: readonly [string, LogEvent, string][] = [
      ['bytes that are no JSON', bytes('ev.public.t.update', `{"v":1,${at}`), 'bad_event'],
      ['an event without a time', bytes('ev.public.t.update', '{"v":1,"key":{"id":1},"after":{"id":1,"a":"1"}}'), 'bad_event'],
      ['an event without a row', bytes('ev.public.t.update', `{"v":1,"key":{"id":1},${at}}`), 'bad_event'],
      ['an operation that nobody knows', bytes('ev.public.t.merge', `{${at}}`), 'unknown_op'],
      ['a schema without columns', bytes('ev._schema.public.t', `{"v":1,${at}}`), 'bad_event'],
      ...(
        [
          ['a condition that is none', { condition: { field: 'a', op: 'above', value: 1 } }],
          ['an edge with for', { condition: { field: 'a', op: 'changed' }, for_seconds: 1 }],
          ['an edge with clear', { condition: { field: 'a', op: 'changed' }, clear_condition: { field: 'a', op: 'gt', value: 1 } }],
          ['an edge under not', { condition: { not: { field: 'a', op: 'changed' } } }],
          ['a rule on a table of Headwater', { table_name: 'headwater.users' }],
          ['a match without values', { match: { c: [] } }],
          ['a severity that is none', { severity: 'loud' }],
          ['columns twice in groupBy', { group_by: ['c', 'c'] }],
        ] as const
      ).map(([name, fields]): [string, LogEvent, string] => [
        name,
        logEvent(ruleEvent(9 * 3_600, 'update', { id: 'r', revision: 2, ...fields }), 5),
        'bad_rule',
      ]),
    ];
    for (const [name, event, code] of refused) {
      it(name, () => {
        const engine = new AlertEngine();
        const effects = noEffects();
        for (const one of logOf(events)) engine.apply(one, effects);
        const before = textOf(effects);
        for (let attempt = 0; attempt < 3; attempt++) {
          expect(() => engine.apply(event, effects))
            .to.throw(HeadwaterError)
            .with.property('code', code);
        }
        expect(textOf(effects)).to.equal(before);
        effects.transitions.length = 0;
        // The revision of before is in force, and the time has not moved.
        for (const [i, one] of [tick(1), row(3, { a: '1' })].entries()) engine.apply(logEvent(one, 6 + i), effects);
        expect(effects.transitions.map(({ alert }) => [alert.reason, alert.revision])).to.deep.equal([['condition', 1]]);
        expect(effects.clock!.at % 60e6).to.equal(3e6);
      });
    }
  });

  describe('what is stored', () => {
    it('goes with what it belongs to: nothing is left when entities and rules are gone', () => {
      const fields = { condition: { or: [{ field: 'a', change: '60s', op: 'gt', value: 1 }, { absent_for: '1s' }] } };
      const gone: TestEvent = { kind: 'row', at: 4, op: 'delete', key: { id: 1 }, before: { id: 1 } };
      const base = [schema, rule(fields), row(1, { a: '60' }), row(2, { a: '61' }), row(3, { a: '1' }, 'update', 2), tick(5)];
      const sizes = (events: readonly TestEvent[]): Store['sizes'] => runInterrupted(events, new Set([4])).store.sizes;
      expect(sizes(base)).to.deep.equal({ tables: 1, rules: 1, entities: 2, samples: 3, episodes: 2 });
      expect(sizes([...base, gone])).to.deep.equal({ tables: 1, rules: 1, entities: 1, samples: 1, episodes: 1 });
      expect(sizes([...base, ruleEvent(6, 'delete', { id: 'r' })])).to.deep.equal({
        tables: 1,
        rules: 0,
        entities: 0,
        samples: 0,
        episodes: 0,
      });
    });

    it('is nothing of rows that no rule can be about', () => {
      const { store } = runInterrupted(
        [schema, rule({ match: { id: [2] } }), row(1, { a: '60' }), row(2, { a: '60' }, 'update', 2)],
        new Set(),
      );
      expect(store.sizes).to.include({ entities: 1, episodes: 1 });
    });

    it('of a window, is bounded however many events there are', () => {
      const rules = [schema, rule({ condition: { field: 'a', change: '1h', op: 'gt', value: 1e9 } })];
      const many = Array.from({ length: 30_000 }, (_, i) => row(i / 4, { a: String(i) }));
      const { store } = runInterrupted([...rules, ...many], new Set());
      expect(store.sizes['samples']).to.be.within(4_096, 4_096 + 2_048 + 2);
    });
  });
});
