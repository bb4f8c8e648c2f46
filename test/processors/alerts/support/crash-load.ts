import { pause } from '../../../../pipeline/runtime/backoff.ts';
import type { PgClient } from '../../../../pipeline/clients/postgres.ts';
import type { Random } from '../../../pipeline/capture/support/random.ts';

export const crashSchema: readonly string[] = [
  'CREATE TABLE quotes (id int PRIMARY KEY, chain text NOT NULL, price numeric(12, 2), status text)',
  `INSERT INTO quotes SELECT i, 'chain ' || i % 3, 50, 'open' FROM generate_series(1, 12) i`,
];

/** Rules of every kind that keeps state, and of some that do not. */
const rules: readonly Readonly<Record<string, unknown>>[] = [
  { name: 'at once', condition: { field: 'price', op: 'gt', value: 60 } },
  { name: 'held', condition: { field: 'price', op: 'gt', value: 45 }, for_seconds: 1 },
  { name: 'kept', condition: { field: 'price', op: 'lt', value: 40 }, keep_firing_for_seconds: 1 },
  {
    name: 'with a band',
    condition: { field: 'price', op: 'gte', value: 70 },
    clear_condition: { field: 'price', op: 'lt', value: 30 },
  },
  { name: 'crossing', condition: { field: 'price', op: 'crosses_above', value: 50 } },
  { name: 'changed', condition: { field: 'status', op: 'changed' } },
  { name: 'percent', condition: { field: 'price', change: '2s', op: 'gt', value: 60 } },
  { name: 'silent', condition: { absent_for: '1s' } },
  { name: 'by chain', condition: { field: 'price', op: 'gt', value: 80 }, group_by: ['chain'] },
  { name: 'one chain', condition: { field: 'price', op: 'lt', value: 20 }, match: { chain: ['chain 1'] } },
];

const columns: readonly string[] = ['name', 'condition', 'clear_condition', 'for_seconds', 'keep_firing_for_seconds', 'group_by', 'match'];

/** Inserts one of the kinds. */
async function insertRule(client: PgClient, rule: Readonly<Record<string, unknown>>): Promise<void> {
  const given = columns.filter((column) => column in rule);
  const json = new Set(['condition', 'clear_condition', 'match']);
  await client.query(
    `INSERT INTO headwater.alert_rules (user_id, table_name, ${given.join(', ')})
     VALUES ('ann', 'public.quotes', ${given.map((_, i) => `$${i + 1}`).join(', ')})`,
    given.map((column) => (json.has(column) ? JSON.stringify(rule[column]) : rule[column])),
  );
}

/**
 * Prices that go up and down, and rules that come, change and go, until it is stopped.
 * @param pauseMs most time between two transactions
 */
export async function runLoad(client: PgClient, random: Random, signal: AbortSignal, pauseMs = 8): Promise<void> {
  for (const rule of rules) await insertRule(client, rule);
  while (!signal.aborted) {
    await client.query('BEGIN');
    for (let i = random.int(1, 4); i > 0; i--) await change(client, random);
    await client.query('COMMIT');
    await pause(random.int(0, pauseMs), signal);
  }
}

async function change(client: PgClient, random: Random): Promise<void> {
  const id = random.int(1, 12);
  const someRule = `(SELECT id FROM headwater.alert_rules ORDER BY md5(id::text || $1) LIMIT 1)`;
  const any = [String(random.next())];
  const chance = random.next();
  if (chance < 0.01) await insertRule(client, random.pick(rules));
  else if (chance < 0.015) await client.query(`DELETE FROM headwater.alert_rules WHERE id = ${someRule}`, any);
  else if (chance < 0.02) await client.query(`UPDATE headwater.alert_rules SET enabled = NOT enabled WHERE id = ${someRule}`, any);
  else if (chance < 0.025)
    await client.query(`UPDATE headwater.alert_rules SET severity = 'critical', name = $1 WHERE id = ${someRule}`, any);
  else if (chance < 0.05) {
    await client.query('DELETE FROM quotes WHERE id = $1', [id]);
    await client.query(`INSERT INTO quotes VALUES ($1, $2, $3, 'open')`, [id, `chain ${random.int(0, 2)}`, random.int(0, 100)]);
  } else if (chance < 0.15) await client.query('UPDATE quotes SET status = $2 WHERE id = $1', [id, random.pick(['open', 'shut'])]);
  else await client.query('UPDATE quotes SET price = $2 WHERE id = $1', [id, random.chance(0.03) ? null : random.int(0, 10_000) / 100]);
}
