import { isDeepStrictEqual } from 'node:util';
import { notFound } from '../../../pipeline/runtime/request-fault.ts';
import { isUuid, type Query } from '../../../pipeline/runtime/request-query.ts';
import type { StoredChannel } from './channels.ts';
import type { OwnedRows, Statements } from './owned-rows.ts';
import { pageOf, pageRequest, type Page } from './pages.ts';
import { ruleColumns, ruleResource, type RuleContent, type RuleRow } from './rule-resource.ts';
import { Where } from './where.ts';

const written = `name, table_name, match, group_by, condition, clear_condition, for_seconds, keep_firing_for_seconds, cooldown_seconds,
  severity, channels, enabled`;

/** `headwater.alert_rules`, one owner's rows at a time. */
export class RuleStore {
  readonly #rows: OwnedRows;

  constructor(rows: OwnedRows) {
    this.#rows = rows;
  }

  async insert(owner: string, content: RuleContent, channels: readonly StoredChannel[]): Promise<RuleRow> {
    const values = valuesOf(content, channels);
    const parameters = values.map((_, i) => `$${i + 2}`).join(', ');
    const sql = `INSERT INTO headwater.alert_rules (user_id, ${written}) VALUES ($1, ${parameters}) RETURNING ${ruleColumns}`;
    const [row] = await this.#rows.as(owner, (statements) => statements.query<RuleRow>(sql, [owner, ...values]));
    return row!;
  }

  /** @throws RequestFault `not_found` */
  async get(owner: string, id: string): Promise<RuleRow> {
    return this.#rows.as(owner, (statements) => stored(statements, owner, id));
  }

  /** In the order of their creation. */
  async list(owner: string, query: Query): Promise<Page<object>> {
    const page = pageRequest(query, 'alert-rules', owner);
    const where = new Where()
      .equal('user_id', owner)
      .equal('table_name', query.text('table'))
      .equal('name', query.text('name'))
      .equal('enabled', query.flag('enabled'))
      .after('created_at', '>', page.after);
    const sql = `SELECT ${ruleColumns} FROM headwater.alert_rules ${where.sql} ORDER BY created_at, id LIMIT ${page.limit + 1}`;
    const found = await this.#rows.as(owner, (statements) => statements.query<RuleRow>(sql, where.values));
    return pageOf(page, found, (row) => ruleResource(row));
  }

  /** Writes a rule that is still `before`; undefined when it is not any more. What would change nothing is not written. */
  async update(owner: string, before: RuleRow, content: RuleContent, channels: readonly StoredChannel[]): Promise<RuleRow | undefined> {
    // The order of members says nothing, and jsonb does not keep it.
    if (isDeepStrictEqual([content, channels], [contentOf(before), before.channels])) return before;
    const values = valuesOf(content, channels);
    const parameters = values.map((_, i) => `$${i + 4}`).join(', ');
    const sql = `UPDATE headwater.alert_rules SET (${written}) = ROW (${parameters})
      WHERE user_id = $1 AND id = $2 AND revision = $3 RETURNING ${ruleColumns}`;
    const [row] = await this.#rows.as(owner, (statements) =>
      statements.query<RuleRow>(sql, [owner, before.id, before.revision, ...values]),
    );
    return row;
  }

  /** False when it is not `before` any more. */
  async delete(owner: string, before: RuleRow): Promise<boolean> {
    const sql = 'DELETE FROM headwater.alert_rules WHERE user_id = $1 AND id = $2 AND revision = $3 RETURNING id';
    const gone = await this.#rows.as(owner, (statements) => statements.query(sql, [owner, before.id, before.revision]));
    return gone.length > 0;
  }
}

/** The content of a rule that is stored. */
export function contentOf(row: RuleRow): RuleContent {
  return {
    name: row.name,
    table: row.table_name,
    match: row.match,
    groupBy: row.group_by ?? undefined,
    when: row.condition,
    clear: row.clear_condition ?? undefined,
    forSeconds: row.for_seconds,
    keepFiringForSeconds: row.keep_firing_for_seconds,
    cooldownSeconds: row.cooldown_seconds,
    severity: row.severity,
    enabled: row.enabled,
  };
}

async function stored(statements: Statements, owner: string, id: string): Promise<RuleRow> {
  const sql = `SELECT ${ruleColumns} FROM headwater.alert_rules WHERE user_id = $1 AND id = $2`;
  const [row] = isUuid(id) ? await statements.query<RuleRow>(sql, [owner, id]) : [];
  if (!row) throw notFound('rule');
  return row;
}

/** In the order of `written`. */
function valuesOf(content: RuleContent, channels: readonly StoredChannel[]): readonly unknown[] {
  return [
    content.name,
    content.table,
    JSON.stringify(content.match),
    content.groupBy ?? null,
    JSON.stringify(content.when),
    content.clear === undefined ? null : JSON.stringify(content.clear),
    content.forSeconds,
    content.keepFiringForSeconds,
    content.cooldownSeconds,
    content.severity,
    JSON.stringify(channels),
    content.enabled,
  ];
}
