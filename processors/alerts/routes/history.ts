import type { FastifyInstance, FastifyReply } from 'fastify';
import { notFound } from '../../../pipeline/runtime/request-fault.ts';
import { isUuid, readQuery } from '../../../pipeline/runtime/request-query.ts';
import type { OwnedRows } from './owned-rows.ts';
import { pageOf, pageRequest, type Position } from './pages.ts';
import { isoTime } from './rule-resource.ts';
import { Where } from './where.ts';

interface AlertRow extends Position {
  readonly rule_id: string;
  readonly revision: number;
  readonly user_id: string;
  readonly entity: Readonly<Record<string, unknown>>;
  readonly severity: string;
  readonly state: 'firing' | 'resolved';
  readonly value: string | null;
  readonly fired_seq: string;
  readonly resolved_at: string | null;
  readonly resolved_seq: string | null;
  readonly reason: string | null;
  readonly event?: string | null;
}

const columns = `id, rule_id, revision, user_id, entity, severity, state, value, ${isoTime('fired_at')} AS at, fired_seq,
  ${isoTime('resolved_at')} AS resolved_at, resolved_seq, reason`;

/** `/v2/alerts`: what has fired, newest first, and each alert with the event at which it fired. */
export function historyRoutes(app: FastifyInstance, rows: OwnedRows): void {
  app.get('/v2/alerts', async (request, reply) => {
    const { owner } = request.principal;
    const query = readQuery(request, ['limit', 'cursor', 'ruleId', 'state', 'severity', 'from', 'to', 'entity.']);
    const page = pageRequest(query, 'alerts', owner);
    const where = new Where()
      .equal('user_id', owner)
      .equal('rule_id', query.uuid('ruleId'))
      .equal('state', query.choice('state', ['firing', 'resolved']))
      .equal('severity', query.choice('severity', ['info', 'warning', 'critical']))
      .compare('fired_at', '>=', query.instant('from'), 'timestamptz')
      .compare('fired_at', '<', query.instant('to'), 'timestamptz')
      .members('entity', query.under('entity.'))
      .after('fired_at', '<', page.after);
    const found = await rows.as(owner, (statements) =>
      statements.query<AlertRow>(
        `SELECT ${columns} FROM headwater.alert_history ${where.sql} ORDER BY fired_at DESC, id LIMIT ${page.limit + 1}`,
        where.values,
      ),
    );
    return reply.send(pageOf(page, found, alertResource));
  });

  app.get<{ Params: { id: string } }>('/v2/alerts/:id', async (request, reply) => {
    readQuery(request);
    const [row] = isUuid(request.params.id)
      ? await rows.as(request.principal.owner, (statements) =>
          statements.query<AlertRow>(
            `SELECT ${columns}, event::text AS event FROM headwater.alert_history WHERE id = $1 AND user_id = $2`,
            [request.params.id, request.principal.owner],
          ),
        )
      : [];
    if (!row) throw notFound('alert');
    return sendWithEvent(reply, row);
  });
}

/** The event goes out as it is stored: as JavaScript values its numbers could lose digits. */
function sendWithEvent(reply: FastifyReply, row: AlertRow): FastifyReply {
  const alert = JSON.stringify(alertResource(row));
  const text = row.event == null ? alert : `${alert.slice(0, -1)},"event":${row.event}}`;
  return reply.header('content-type', 'application/json; charset=utf-8').send(text);
}

function alertResource(row: AlertRow): object {
  return {
    id: row.id,
    ruleId: row.rule_id,
    revision: row.revision,
    userId: row.user_id,
    entity: row.entity,
    severity: row.severity,
    state: row.state,
    value: row.value,
    firedAt: row.at,
    firedSeq: Number(row.fired_seq),
    ...(row.resolved_at !== null && { resolvedAt: row.resolved_at }),
    ...(row.resolved_seq !== null && { resolvedSeq: Number(row.resolved_seq) }),
    ...(row.reason !== null && { reason: row.reason }),
  };
}
