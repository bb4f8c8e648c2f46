import type { PgPool, Queryable } from '../../../pipeline/clients/postgres.ts';
import type { Seq } from '../../../pipeline/log/event-log.ts';
import type { PostgresStateStore } from '../../../pipeline/runner/postgres-state-store.ts';
import type { Offset } from '../../../pipeline/runner/state-store.ts';
import type { RuleCondition } from '../../../schemas/condition/condition.ts';
import type { AlertEffects, RuleRow, SavedClock } from '../engine/saved.ts';
import type { ResolveReason, Severity } from '../model.ts';
import { writeTransitions, type PostedTransition } from './transitions.ts';

/** What is mended. */
export interface StoredAlerts {
  readonly pool: PgPool;
  readonly store: PostgresStateStore<AlertEffects>;
  readonly processor: string;
}

/** Where the stored state ends. */
interface Head {
  readonly offset: Offset;
  /** What its rows are marked with. */
  readonly namespace: string;
  /** Undefined when it has seen no event. */
  readonly clock: SavedClock | undefined;
}

/**
 * For a new epoch, which begins with a copy of all rows, rules included: nothing that is known of the old one says anything in it.
 * What fires is resolved as of the last event that was folded (`epoch_changed`), and whoever was told of it is told so; what still
 * holds fires anew, as another alert. The state is dropped, and the processor begins at the epoch's first event.
 */
export async function beginAnew({ pool, store, processor }: StoredAlerts): Promise<void> {
  const head = await readHead(pool, processor);
  if (!head) return;
  await store.change(head.offset, undefined, async (client, namespace) => {
    await resolveFiring(client, head, `'epoch_changed'`, 'true');
    for (const table of ['tables', 'rules', 'episodes', 'entities', 'journal', 'samples'])
      await client.query(`DELETE FROM headwater.alert_state_${table} WHERE processor = $1`, [namespace]);
  });
}

/**
 * For a log that no longer holds the next event: goes on at the oldest that it holds, with what is known. Of the rules that have changed
 * meanwhile the database itself is asked: what they had firing is resolved, and they are taken as they are now.
 * @param accepts is it a rule that the engine can take?
 */
export async function skipTo(
  first: Seq,
  { pool, store, processor }: StoredAlerts,
  accepts: (row: RuleRow) => boolean,
): Promise<number | undefined> {
  const head = await readHead(pool, processor);
  if (!head || head.offset.seq + 1 >= first) return undefined;
  const outcome = await store.change(head.offset, { ...head.offset, seq: first - 1 }, async (client) => {
    const reason = `CASE WHEN r.id IS NULL THEN 'rule_deleted' WHEN NOT r.enabled THEN 'rule_disabled' ELSE 'rule_edited' END`;
    await resolveFiring(client, head, reason, 'r.id IS NULL OR NOT r.enabled OR r.revision <> h.revision');
    await takeRules(client, head.namespace, first, accepts);
  });
  return outcome === 'committed' ? first - 1 - head.offset.seq : undefined;
}

async function readHead(pool: PgPool, processor: string): Promise<Head | undefined> {
  const { rows } = await pool.query<{ seq: string; epoch: string; namespace: string | null; head: { clock?: SavedClock } | null }>(
    'SELECT seq, epoch, namespace, head FROM headwater.processor_offsets WHERE processor = $1 AND seq IS NOT NULL',
    [processor],
  );
  if (!rows[0]) return undefined;
  const { seq, epoch, namespace, head } = rows[0];
  return {
    offset: { seq: Number(seq), epoch, ...(namespace !== null && { namespace }) },
    namespace: namespace ?? processor,
    clock: head?.clock,
  };
}

interface FiringRow {
  readonly id: string;
  readonly rule_id: string;
  readonly revision: number;
  readonly user_id: string;
  readonly entity: Readonly<Record<string, unknown>>;
  readonly severity: Severity;
  readonly value: string | null;
  readonly fired_at: string;
  readonly fired_seq: string;
  readonly event: string;
  readonly reason: ResolveReason;
  readonly row: RuleRow;
}

const pageRows = 5_000;

/** What fired at its event alone, a crossing say, has no end that could be told. */
const isGoingOn = `EXISTS (SELECT FROM headwater.alert_state_episodes e
  WHERE e.processor = $1 AND e.rule = h.rule_id AND e.phase = 'firing' AND e.record->'fired'->>'alert' = h.id::text)`;

/** Resolves alerts as of the end of the state, page by page. `reason` and `condition` are SQL over `h` (history) and `r` (alert_rules). */
async function resolveFiring(client: Queryable, head: Head, reason: string, condition: string): Promise<void> {
  for (let after = '00000000-0000-0000-0000-000000000000'; ;) {
    const { rows } = await client.query<FiringRow>(
      `SELECT h.id, h.rule_id, h.revision, h.user_id, h.entity, h.severity, h.value, (extract(epoch FROM h.fired_at) * 1000000)::bigint AS fired_at,
         h.fired_seq, h.event::text AS event, ${reason} AS reason, s.record->'row' AS row
       FROM headwater.alert_history h JOIN headwater.alert_state_rules s ON s.processor = $1 AND s.id = h.rule_id
       LEFT JOIN headwater.alert_rules r ON r.id = h.rule_id
       WHERE h.state = 'firing' AND (${condition}) AND h.id > $2 AND ${isGoingOn} ORDER BY h.id LIMIT ${pageRows}`,
      [head.namespace, after],
    );
    await writeTransitions(
      client,
      rows.map((row) => resolved(row, head)),
    );
    if (rows.length < pageRows) return;
    after = rows.at(-1)!.id;
  }
}

function resolved({ row, ...alert }: FiringRow, { offset, clock }: Head): PostedTransition {
  const [firedAt, firedSeq] = [Number(alert.fired_at), Number(alert.fired_seq)];
  return {
    alert: {
      id: alert.id,
      ruleId: alert.rule_id,
      revision: alert.revision,
      userId: alert.user_id,
      entity: alert.entity,
      severity: alert.severity,
      state: 'resolved',
      value: alert.value,
      firedAt,
      firedSeq,
      resolvedAt: Math.max(firedAt, clock?.at ?? 0),
      resolvedSeq: Math.max(firedSeq, offset.seq),
      reason: alert.reason,
    },
    rule: {
      name: row.name,
      table: row.table_name,
      when: row.condition as RuleCondition,
      clear: (row.clear_condition ?? undefined) as RuleCondition | undefined,
      severity: row.severity as Severity,
    },
    event: alert.event,
  };
}

/** The rules as the database has them now, in place of those that are not the same. */
async function takeRules(client: Queryable, namespace: string, first: Seq, accepts: (row: RuleRow) => boolean): Promise<void> {
  const differs = `NOT EXISTS (SELECT FROM headwater.alert_rules r WHERE r.id = s.id AND r.revision = (s.record->'row'->>'revision')::integer)`;
  await client.query(
    `DELETE FROM headwater.alert_state_episodes e USING headwater.alert_state_rules s
     WHERE e.processor = $1 AND s.processor = $1 AND e.rule = s.id AND ${differs}`,
    [namespace],
  );
  await client.query(`DELETE FROM headwater.alert_state_rules s WHERE s.processor = $1 AND ${differs}`, [namespace]);
  const { rows } = await client.query<{ row: RuleRow }>(
    `SELECT to_jsonb(r) - '{channels,created_at,updated_at}'::text[] AS row FROM headwater.alert_rules r
     WHERE NOT EXISTS (SELECT FROM headwater.alert_state_rules s WHERE s.processor = $1 AND s.id = r.id)`,
    [namespace],
  );
  const records = rows.filter(({ row }) => accepts(row)).map(({ row }) => ({ id: row.id, seq: first - 1, row }));
  await client.query(
    `INSERT INTO headwater.alert_state_rules (processor, id, record)
     SELECT $1, (record->>'id')::uuid, record FROM json_array_elements($2::json) AS r(record)`,
    [namespace, JSON.stringify(records)],
  );
}
