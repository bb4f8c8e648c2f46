import type { Queryable } from '../../../pipeline/clients/postgres.ts';
import type { Alert, Rule } from '../model.ts';
import { arraysOf, chunksOf, timestampOf, unnest, forJsonb, type Cells } from './cells.ts';

/** What history and outbox need to know of a transition. */
export interface PostedTransition {
  readonly alert: Alert;
  readonly rule: Pick<Rule, 'name' | 'table' | 'when' | 'clear' | 'severity'>;
  /** JSON text of the event at which it happened. */
  readonly event: string;
}

/** The channel of NOTIFY that says that there is something in the outbox. */
const outboxChannel = 'headwater_outbox';

const historyColumns = {
  id: 'uuid',
  rule_id: 'uuid',
  revision: 'integer',
  user_id: 'text',
  entity: 'jsonb',
  severity: 'text',
  state: 'text',
  value: 'text',
  fired_at: 'timestamptz',
  fired_seq: 'bigint',
  event: 'json',
};

/**
 * An alert that is there already has been made by a fold of before that was given up: it is firing again, and has been
 * notified of (`inserted` is false).
 */
const fire = `
  INSERT INTO headwater.alert_history AS h (${Object.keys(historyColumns).join(', ')}) SELECT * FROM ${unnest(historyColumns)}
  ON CONFLICT (id) DO UPDATE SET state = 'firing', resolved_at = NULL, resolved_seq = NULL, reason = NULL
    WHERE h.reason = 'epoch_changed'
  RETURNING id, (xmax = 0) AS inserted`;

const resolve = `
  UPDATE headwater.alert_history h
  SET state = 'resolved', resolved_at = r.resolved_at, resolved_seq = r.resolved_seq, reason = r.reason
  FROM ${unnest({ id: 'uuid', resolved_at: 'timestamptz', resolved_seq: 'bigint', reason: 'text' })}
    AS r(id, resolved_at, resolved_seq, reason)
  WHERE h.id = r.id AND h.state = 'firing'
  RETURNING h.id`;

const outboxColumns = {
  alert_id: 'uuid',
  transition: 'text',
  rule_id: 'uuid',
  revision: 'integer',
  user_id: 'text',
  alert: 'jsonb',
  rule: 'jsonb',
  event: 'json',
};
const outboxNames = Object.keys(outboxColumns).join(', ');

const post = `
  INSERT INTO headwater.alert_outbox (${outboxNames})
  SELECT ${outboxNames} FROM ${unnest(outboxColumns)} WITH ORDINALITY AS r(${outboxNames}, n) ORDER BY n
  ON CONFLICT (alert_id, transition) DO NOTHING`;

/** History and outbox of transitions, in their order. What is not new in the history is not posted: nobody is told twice. */
export async function writeTransitions(client: Queryable, transitions: readonly PostedTransition[]): Promise<void> {
  let posted = false;
  for (const chunk of chunksOf(transitions, ({ event }) => event.length + 1_000)) {
    const rows: Cells[] = [];
    for (const { resolved, fired, all } of steps(chunk)) {
      const isNew = { resolved: await resolveAll(client, resolved), firing: await fireAll(client, fired) };
      rows.push(...all.filter(({ alert }) => isNew[alert.state].has(alert.id)).map(outboxCells));
    }
    if (rows.length > 0) await client.query(post, arraysOf(rows));
    posted ||= rows.length > 0;
  }
  if (posted) await client.query(`NOTIFY ${outboxChannel}`);
}

interface Step {
  readonly resolved: PostedTransition[];
  readonly fired: PostedTransition[];
  readonly all: PostedTransition[];
}

/**
 * Transitions that can be written together: what is resolved, then what fires. So the history tells of an entity in the right
 * order to whoever follows it, with few statements.
 */
function* steps(transitions: readonly PostedTransition[]): Generator<Step, void, undefined> {
  let step: Step = { resolved: [], fired: [], all: [] };
  let fired = new Set<string>();
  for (const transition of transitions) {
    const { id, state } = transition.alert;
    if (state === 'resolved' && fired.has(id)) {
      yield step;
      [step, fired] = [{ resolved: [], fired: [], all: [] }, new Set()];
    }
    step.all.push(transition);
    if (state === 'resolved') step.resolved.push(transition);
    else {
      step.fired.push(transition);
      fired.add(id);
    }
  }
  if (step.all.length > 0) yield step;
}

async function fireAll(client: Queryable, fired: readonly PostedTransition[]): Promise<ReadonlySet<string>> {
  if (fired.length === 0) return new Set();
  const { rows } = await client.query<{ id: string; inserted: boolean }>(fire, arraysOf(fired.map(historyCells)));
  return new Set(rows.filter(({ inserted }) => inserted).map(({ id }) => id));
}

async function resolveAll(client: Queryable, resolved: readonly PostedTransition[]): Promise<ReadonlySet<string>> {
  if (resolved.length === 0) return new Set();
  const cells = resolved.map(({ alert }): Cells => {
    const { resolved_at, resolved_seq, reason } = columnsOf(alert);
    return [alert.id, resolved_at, resolved_seq, reason];
  });
  const { rows } = await client.query<{ id: string }>(resolve, arraysOf(cells));
  return new Set(rows.map(({ id }) => id));
}

/** The alert's row, but for the event. */
function columnsOf(alert: Alert) {
  const { id, ruleId, revision, userId, entity, severity, state, value, firedAt, firedSeq, resolvedAt, resolvedSeq, reason } = alert;
  return {
    id,
    rule_id: ruleId,
    revision,
    user_id: userId,
    entity,
    severity,
    state,
    value: value?.replaceAll('\0', '\ufffd') ?? null,
    fired_at: timestampOf(firedAt),
    fired_seq: firedSeq,
    resolved_at: resolvedAt === undefined ? null : timestampOf(resolvedAt),
    resolved_seq: resolvedSeq ?? null,
    reason: reason ?? null,
  };
}

function historyCells({ alert, event }: PostedTransition): Cells {
  const { id, rule_id, revision, user_id, entity, severity, state, value, fired_at, fired_seq } = columnsOf(alert);
  const entityJson = forJsonb(JSON.stringify(entity));
  return [id, rule_id, revision, user_id, entityJson, severity, state, value, fired_at, fired_seq, event];
}

function outboxCells({ alert, rule, event }: PostedTransition): Cells {
  const { name, table, when, clear, severity } = rule;
  const ruleJson = JSON.stringify({ name, table, condition: when, clear: clear ?? null, severity });
  const alertJson = forJsonb(JSON.stringify(columnsOf(alert)));
  return [alert.id, alert.state, alert.ruleId, alert.revision, alert.userId, alertJson, forJsonb(ruleJson), event];
}
