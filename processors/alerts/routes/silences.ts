import type { FastifyInstance, FastifyRequest } from 'fastify';
import { badBody, notFound } from '../../../pipeline/runtime/request-fault.ts';
import { instantOf, isUuid, readQuery } from '../../../pipeline/runtime/request-query.ts';
import { suggestion } from '../../../schemas/nearest.ts';
import { objectBody } from './json-body.ts';
import type { OwnedRows, Statements } from './owned-rows.ts';
import { pageOf, pageRequest, type Position } from './pages.ts';
import { isoTime } from './rule-resource.ts';
import { Where } from './where.ts';

/** What a silence is made of: `match` as in rules, column → texts of values; all of it must fit an alert's entity. */
interface SilenceContent {
  readonly ruleId: string | null;
  readonly match: Readonly<Record<string, readonly (string | number | boolean)[]>>;
  readonly comment: string | null;
  /** ISO 8601; null: now. */
  readonly startsAt: string | null;
  readonly endsAt: string;
}

interface SilenceRow extends Position {
  readonly user_id: string;
  readonly rule_id: string | null;
  readonly match: SilenceContent['match'];
  readonly comment: string | null;
  readonly starts_at: string;
  readonly ends_at: string;
  readonly updated_at: string;
}

type Id = { Params: { id: string } };
type Body = Readonly<Record<string, unknown>>;

const columns = `id, user_id, rule_id, match, comment, ${isoTime('starts_at')} AS starts_at, ${isoTime('ends_at')} AS ends_at,
  ${isoTime('created_at')} AS at, ${isoTime('updated_at')} AS updated_at`;
const members: readonly string[] = ['ruleId', 'match', 'comment', 'startsAt', 'endsAt'];
const ownMembers: readonly string[] = ['id', 'userId', 'createdAt', 'updatedAt'];
const [mostColumns, mostValues, longestComment] = [16, 200, 1_000];

/** `/v2/silences`: times over which alerts notify nobody. They fire all the same, and are in the history. */
export function silenceRoutes(app: FastifyInstance, rows: OwnedRows): void {
  app.post('/v2/silences', async (request, reply) => {
    readQuery(request);
    const content = contentOf(objectBody(request.body));
    const row = await rows.as(request.principal.owner, async (statements) => {
      await requireRule(statements, request, content);
      const [made] = await statements.query<SilenceRow>(
        `INSERT INTO headwater.silences (rule_id, match, comment, starts_at, ends_at, user_id)
         VALUES ($1, $2, $3, coalesce($4::timestamptz, now()), $5::timestamptz, $6) RETURNING ${columns}`,
        [...parametersOf(content), request.principal.owner],
      );
      return made!;
    });
    return reply.code(201).header('Location', `/v2/silences/${row.id}`).send(silenceResource(row));
  });

  app.get('/v2/silences', async (request, reply) => {
    const { owner } = request.principal;
    const query = readQuery(request, ['limit', 'cursor', 'ruleId', 'active']);
    const page = pageRequest(query, 'silences', owner);
    const where = new Where().equal('user_id', owner).equal('rule_id', query.uuid('ruleId')).after('created_at', '<', page.after);
    const active = { true: 'AND starts_at <= now() AND ends_at > now()', false: 'AND NOT (starts_at <= now() AND ends_at > now())' };
    const filter = active[query.choice('active', ['true', 'false']) as keyof typeof active] ?? '';
    const found = await rows.as(owner, (statements) =>
      statements.query<SilenceRow>(
        `SELECT ${columns} FROM headwater.silences ${where.sql} ${filter} ORDER BY created_at DESC, id LIMIT ${page.limit + 1}`,
        where.values,
      ),
    );
    return reply.send(pageOf(page, found, silenceResource));
  });

  app.get<Id>('/v2/silences/:id', async (request, reply) => {
    readQuery(request);
    const row = await rows.as(request.principal.owner, (statements) => stored(statements, request));
    return reply.send(silenceResource(row));
  });

  const update = async (request: FastifyRequest<Id>, merge: boolean): Promise<object> => {
    readQuery(request);
    const body = objectBody(request.body);
    return rows.as(request.principal.owner, async (statements) => {
      const before = await stored(statements, request, 'FOR UPDATE');
      const content = contentOf(merge ? { ...silenceResource(before), ...body } : body, before);
      // Its rule may have been deleted since: what was read can be sent back.
      if (content.ruleId !== before.rule_id) await requireRule(statements, request, content);
      const [after] = await statements.query<SilenceRow>(
        `UPDATE headwater.silences SET rule_id = $1, match = $2, comment = $3, starts_at = coalesce($4::timestamptz, starts_at), ends_at = $5::timestamptz
          WHERE id = $6 AND user_id = $7 RETURNING ${columns}`,
        [...parametersOf(content), request.params.id, request.principal.owner],
      );
      return silenceResource(after!);
    });
  };
  app.put<Id>('/v2/silences/:id', (request) => update(request, false));
  app.patch<Id>('/v2/silences/:id', (request) => update(request, true));

  app.delete<Id>('/v2/silences/:id', async (request, reply) => {
    readQuery(request);
    await rows.as(request.principal.owner, async (statements) => {
      await stored(statements, request);
      await statements.query('DELETE FROM headwater.silences WHERE id = $1 AND user_id = $2', [request.params.id, request.principal.owner]);
    });
    return reply.code(204).send();
  });
}

async function stored(statements: Statements, request: FastifyRequest<Id>, lock = ''): Promise<SilenceRow> {
  const { id } = request.params;
  const sql = `SELECT ${columns} FROM headwater.silences WHERE id = $1 AND user_id = $2 ${lock}`;
  const [row] = isUuid(id) ? await statements.query<SilenceRow>(sql, [id, request.principal.owner]) : [];
  if (!row) throw notFound('silence');
  return row;
}

async function requireRule(statements: Statements, request: FastifyRequest, { ruleId }: SilenceContent): Promise<void> {
  if (ruleId === null) return;
  const sql = 'SELECT id FROM headwater.alert_rules WHERE id = $1 AND user_id = $2';
  const found = await statements.query(sql, [ruleId, request.principal.owner]);
  if (found.length === 0) throw badBody([{ field: 'ruleId', message: 'names no rule of yours' }]);
}

function parametersOf({ ruleId, match, comment, startsAt, endsAt }: SilenceContent): readonly unknown[] {
  return [ruleId, JSON.stringify(match), comment, startsAt, endsAt];
}

/**
 * Reads a silence. What the server sets is passed over, so that what was read can be sent back.
 * @param before an update's: where its start is when none is given
 * @throws RequestFault with all faults
 */
function contentOf(body: Body, before?: SilenceRow): SilenceContent {
  const faults: { field: string; message: string }[] = [];
  const fault = (field: string, message: string): void => void faults.push({ field, message });
  for (const name of Object.keys(body)) {
    if (!members.includes(name) && !ownMembers.includes(name)) fault(name, `is no part of a silence${suggestion(name, members)}`);
  }
  const ruleId = body['ruleId'] ?? null;
  if (ruleId !== null && !(typeof ruleId === 'string' && isUuid(ruleId))) fault('ruleId', 'must be the id of a rule');
  const comment = body['comment'] ?? null;
  if (comment !== null && !(typeof comment === 'string' && comment.length <= longestComment))
    fault('comment', `must be a text of at most ${longestComment} characters`);
  const startsAt = body['startsAt'] ?? null;
  if (startsAt !== null && instantOf(startsAt) === undefined) fault('startsAt', 'must be a time with its zone, like 2026-11-22T12:00:00Z');
  const endsAt = body['endsAt'];
  if (endsAt === undefined || endsAt === null) fault('endsAt', 'is missing: a silence has an end');
  else if (instantOf(endsAt) === undefined) fault('endsAt', 'must be a time with its zone, like 2026-11-22T12:00:00Z');
  const match = body['match'] ?? {};
  for (const { field, message } of matchFaults(match)) fault(field, message);
  if (faults.length > 0) throw badBody(faults);
  const content = { ruleId, match, comment, startsAt, endsAt } as SilenceContent;
  requireOrder(content, before?.starts_at);
  return content;
}

function requireOrder({ startsAt, endsAt }: SilenceContent, before: string | undefined): void {
  const start = startsAt ?? before;
  const begins = start === undefined ? Date.now() : Date.parse(start);
  if (Date.parse(endsAt) > begins) return;
  const what = start === undefined ? 'is over already' : `must be after the start, ${start}`;
  throw badBody([{ field: 'endsAt', message: what }]);
}

function matchFaults(match: unknown): readonly { readonly field: string; readonly message: string }[] {
  if (typeof match !== 'object' || match === null || Array.isArray(match))
    return [{ field: 'match', message: 'must be an object: column → list of values, one of which the entity has' }];
  const entries = Object.entries(match);
  if (entries.length > mostColumns) return [{ field: 'match', message: `must not name more than ${mostColumns} columns` }];
  return entries.flatMap(([column, values]) => {
    const good =
      Array.isArray(values) &&
      values.length > 0 &&
      values.length <= mostValues &&
      values.every((value) => ['string', 'number', 'boolean'].includes(typeof value));
    return good ? [] : [{ field: `match.${column}`, message: `must be a list of 1 to ${mostValues} texts, numbers or booleans` }];
  });
}

function silenceResource(row: SilenceRow): object {
  return {
    id: row.id,
    userId: row.user_id,
    ...(row.rule_id !== null && { ruleId: row.rule_id }),
    match: row.match,
    ...(row.comment !== null && { comment: row.comment }),
    startsAt: row.starts_at,
    endsAt: row.ends_at,
    createdAt: row.at,
    updatedAt: row.updated_at,
  };
}
