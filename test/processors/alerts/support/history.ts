import { expect } from 'chai';
import { AlertEngine } from '../../../../processors/alerts/engine/alert-engine.ts';
import type { Alert } from '../../../../processors/alerts/model.ts';
import type { CaptureFixture } from '../../../pipeline/capture/support/fixture.ts';

/** The history must be that of a fresh engine that folds the log up to `end`, and the outbox must have each transition once, in their order. */
export async function expectHistoryOfFold(
  fixture: CaptureFixture,
  end: number,
): Promise<{ readonly alerts: number; readonly transitions: number }> {
  const expected: Alert[] = [];
  const engine = new AlertEngine();
  for await (const events of (await fixture.log()).read(1)) {
    for (const event of events) {
      if (event.seq > end) break;
      const effects = engine.begin();
      engine.apply(event, effects);
      expected.push(...effects.transitions.map(({ alert }) => alert));
    }
    if (events.at(-1)!.seq >= end) break;
  }
  await compareHistory(fixture, expected);
  const posted = await fixture.query(`SELECT alert_id || ' ' || transition AS name FROM headwater.alert_outbox ORDER BY id`);
  expectSame(
    'the outbox',
    posted.map(({ name }) => String(name)),
    expected.map(({ id, state }) => `${id} ${state}`),
  );
  return { alerts: new Set(expected.map(({ id }) => id)).size, transitions: expected.length };
}

async function compareHistory(fixture: CaptureFixture, expected: readonly Alert[]): Promise<void> {
  const last = new Map(expected.map((alert) => [alert.id, alert]));
  const micros = (column: string): string => `(extract(epoch FROM ${column}) * 1000000)::float8`;
  const rows = await fixture.query(
    `SELECT id, rule_id, revision, entity, severity, state, value, ${micros('fired_at')} AS fired_at, fired_seq::float8 AS fired_seq,
       ${micros('resolved_at')} AS resolved_at, resolved_seq::float8 AS resolved_seq, reason FROM headwater.alert_history`,
  );
  const sorted = (list: readonly object[]): string[] => list.map((item) => JSON.stringify(item)).sort();
  const wanted = Array.from(last.values(), (alert) => ({
    id: alert.id,
    rule_id: alert.ruleId,
    revision: alert.revision,
    entity: Object.fromEntries(Object.entries(alert.entity).sort(([a], [b]) => (a < b ? -1 : 1))),
    severity: alert.severity,
    state: alert.state,
    value: alert.value,
    fired_at: alert.firedAt,
    fired_seq: alert.firedSeq,
    resolved_at: alert.resolvedAt ?? null,
    resolved_seq: alert.resolvedSeq ?? null,
    reason: alert.reason ?? null,
  }));
  expectSame('the history', sorted(rows), sorted(wanted));
}

/** The same texts in the same order; else what is too much and what is missing, of thousands the first few. */
function expectSame(what: string, found: readonly string[], wanted: readonly string[]): void {
  const without = (all: readonly string[], others: readonly string[]): string[] => {
    const known = new Set(others);
    return all.filter((text) => !known.has(text)).slice(0, 5);
  };
  const [extra, missing] = [without(found, wanted), without(wanted, found)];
  expect({ extra, missing }, what).to.deep.equal({ extra: [], missing: [] });
  const different = found.findIndex((text, i) => text !== wanted[i]);
  expect(found.length === wanted.length && different, `${what}: each of them once, in this order`).to.equal(-1);
}
