import rateLimit from '@fastify/rate-limit';
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { ApiKey } from '../../pipeline/keys/key-store.ts';
import { messageOf } from '../../pipeline/runtime/errors.ts';
import type { Histogram } from '../../pipeline/runtime/metrics.ts';
import { sendError, type Routes } from '../../pipeline/runtime/http.ts';
import { BadJson, bodyLimit, readJson } from '../../pipeline/runtime/json-body.ts';
import type { Logger } from '../../pipeline/runtime/logging.ts';
import { suggestion } from '../../schemas/nearest.ts';
import type { QueryFault } from '../../schemas/query/query.ts';
import { queryFromUrl, urlMembers } from '../../schemas/query/url.ts';
import { KeyConnections } from '../limits.ts';
import { ownFaultOf } from './database-faults.ts';
import type { PreparedQuery, QueryAnswer } from './model.ts';
import { describeFaults, prepareQuery, type PrepareOptions } from './prepare.ts';
import { PreparedQueries, type Asked, type Remembered } from './prepared-queries.ts';
import type { RateStore } from './rate-store.ts';
import { QueryRefused, TableChanged } from './refused.ts';
import type { QueryService } from './service.ts';
import type { TableDirectory } from './tables.ts';
import type { Tiers } from './tiers.ts';

export interface QueryRoutesParts {
  readonly tables: TableDirectory;
  readonly service: QueryService;
  /** Signs cursors; the same for all gateways. */
  readonly cursorSecret: () => Promise<string>;
  readonly tiers: Tiers;
  readonly rates: RateStore;
  /** Seconds from the request to its answer, by outcome: hit, miss or the code of the error. */
  readonly latency: Histogram<'outcome'>;
  readonly log: Logger;
}

const parameters: readonly string[] = [...urlMembers, 'minSeq'];
/** A query prepared again because its table has been changed meanwhile: how often. */
const mostPreparations = 3;

/** `POST /v2/query` and `GET /v2/query` (docs/query.md, docs/openapi.yaml), within what a key may ask. */
export function queryRoutes(parts: QueryRoutesParts): Routes {
  const shared: Shared = { ...parts, atOnce: new KeyConnections(), prepared: new PreparedQueries(), encoded: new WeakMap() };
  return async (app) => {
    await app.register(async (scope) => {
      prepareScope(scope, parts.log);
      await limitRates(scope, parts);
      const handler = (request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> => answer(shared, request, reply);
      scope.get('/v2/query', handler);
      scope.post('/v2/query', handler);
    });
  };
}

interface Shared extends QueryRoutesParts {
  readonly atOnce: KeyConnections;
  readonly prepared: PreparedQueries;
  /** Items of answers → how the body begins that has them. */
  readonly encoded: WeakMap<readonly string[], Buffer>;
}

/** Standard headers on every answer (RateLimit-Limit, -Remaining, -Reset), and Retry-After beside 429. */
async function limitRates(scope: FastifyInstance, { tiers, rates }: QueryRoutesParts): Promise<void> {
  await scope.register(rateLimit, {
    timeWindow: 60_000,
    enableDraftSpec: true,
    // One for all of this gateway, made before.
    store: function store() {
      return rates;
    } as never,
    keyGenerator: ({ principal }) => principal.keyId,
    max: ({ principal }) => tiers.of((principal as ApiKey).limits).perMinute,
    errorResponseBuilder: (_request, { max }) =>
      new QueryRefused('rate_limited', `this key may make ${max} queries a minute, and has made them`),
  });
}

/** What holds for these routes and for no others: body and errors. */
function prepareScope(scope: FastifyInstance, log: Logger): void {
  scope.removeAllContentTypeParsers();
  // Read when it is asked for: what came before is known.
  scope.addContentTypeParser('application/json', { parseAs: 'buffer', bodyLimit }, (_request, body, done) => done(null, body));
  scope.setErrorHandler((error: FastifyError, request, reply) => {
    if (error.code === 'FST_ERR_CTP_BODY_TOO_LARGE')
      return sendError(reply, 'too_large', `the body has more than the ${bodyLimit} bytes that are allowed`);
    if (error.code === 'FST_ERR_CTP_INVALID_MEDIA_TYPE')
      return sendError(reply, 'unsupported_media_type', 'send the body with Content-Type: application/json');
    if (error instanceof BadJson) return sendError(reply, 'bad_request', error.message);
    // What is not ours is for the gateway's handler.
    if (!(error instanceof QueryRefused)) throw error;
    if (error.retryAfterS !== undefined) void reply.header('retry-after', String(error.retryAfterS));
    if (error.code === 'unavailable')
      log.debug({ error: messageOf(error.cause ?? error), path: request.routeOptions.url }, 'a query was not answered');
    return sendError(reply, error.code, error.message, error.field, error.faults);
  });
}

async function answer(parts: Shared, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const { keyId, limits } = request.principal as ApiKey;
  const { atOnce } = parts;
  const most = parts.tiers.of(limits).atOnce;
  if (!atOnce.enter(keyId, most))
    throw new QueryRefused('rate_limited', `this key has ${most} queries under way, and may have no more at once`, { retryAfterS: 1 });
  const gone = new AbortController();
  const measured = parts.latency.startTimer();
  const onClose = (): void => gone.abort();
  reply.raw.once('close', onClose);
  try {
    const found = await answered(parts, request.principal, recalled(parts, request), gone.signal);
    measured({ outcome: found.cache });
    return await send(parts, reply, found);
  } catch (error) {
    measured({ outcome: error instanceof QueryRefused ? error.code : 'internal' });
    if (gone.signal.aborted) throw new QueryRefused('unavailable', 'nobody waits for the answer any more', { cause: error });
    throw error;
  } finally {
    reply.raw.off('close', onClose);
    atOnce.leave(keyId);
  }
}

function recalled({ prepared }: Shared, request: FastifyRequest): Remembered {
  const { owner } = request.principal;
  if (request.method !== 'POST') return prepared.recall(owner, `GET ${request.url}`, () => fromUrl(request));
  const body = request.body as Buffer | undefined;
  // By its bytes, each as one character.
  return prepared.recall(owner, `POST ${body?.toString('latin1') ?? ''}`, () => fromBody(body && readJson(body)));
}

async function answered(
  { tables, service, cursorSecret, log }: QueryRoutesParts,
  principal: FastifyRequest['principal'],
  remembered: Remembered,
  signal: AbortSignal,
): Promise<QueryAnswer> {
  const { input, minSeq } = remembered.asked;
  const from = tableName(input);
  const { owner, keyId } = principal;
  for (let attempt = 1; ; attempt++) {
    const [view, secret] = await Promise.all([tables.view(from, principal), cursorSecret()]).catch((error: unknown) =>
      asRefusal(error, log),
    );
    const known = remembered.query;
    const isCurrent = known !== undefined && known.table.version === view.find(from)?.version;
    const query = isCurrent ? known : readyToRun(input, { tables: view, owner, cursorSecret: secret });
    if (!isCurrent) remembered.query = query;
    try {
      return await service.answer(query, { owner, keyId, minSeq, signal });
    } catch (error) {
      if (!(error instanceof TableChanged)) throw error;
      tables.forget(from);
      if (attempt === mostPreparations)
        throw new QueryRefused('unavailable', 'the table is being changed, try again', { retryAfterS: 1, cause: error });
    }
  }
}

/** @throws QueryRefused with all that is wrong */
function readyToRun(input: unknown, options: PrepareOptions): PreparedQuery {
  const { query, code, faults } = prepareQuery(input, options);
  if (!query) throw refusalOf(code, faults);
  return query;
}

/** The catalogue of PostgreSQL, or Headwater's own tables, could not be asked. */
function asRefusal(error: unknown, log: Logger): never {
  if (error instanceof QueryRefused) throw error;
  const { refusal, advice } = ownFaultOf(error);
  if (advice !== undefined) log.error({ error: messageOf(error) }, `queries are off: ${advice}`);
  throw refusal;
}

function refusalOf(code: 'bad_query' | 'bad_cursor', faults: readonly QueryFault[]): QueryRefused {
  const all = faults.map(({ field, ...fault }) => ({
    field,
    message: describeFaults([{ field, ...fault }])
      .slice(field.length)
      .trimStart(),
  }));
  return new QueryRefused(code, describeFaults(faults.slice(0, 1)), { field: faults[0]!.field, ...(all.length > 1 && { faults: all }) });
}

/** The whole name of the table that is asked, as far as it can be told before the query is checked. */
function tableName(input: unknown): string {
  const from = typeof input === 'object' && input !== null ? (input as { from?: unknown }).from : undefined;
  if (typeof from !== 'string') return '';
  return from.includes('.') ? from : `public.${from}`;
}

function fromBody(body: unknown): Asked {
  if (typeof body !== 'object' || body === null || Array.isArray(body))
    throw new QueryRefused('bad_request', 'the body must be a JSON object: {"from": "public.prices", …}');
  const { minSeq, ...input } = body as Readonly<Record<string, unknown>>;
  if (minSeq !== undefined && !(Number.isSafeInteger(minSeq) && (minSeq as number) >= 0)) throw badMinSeq();
  return { input, minSeq: minSeq as number | undefined };
}

function fromUrl(request: FastifyRequest): Asked {
  const given = new Map<string, readonly string[]>();
  for (const [name, value] of new URLSearchParams((request.raw.url ?? '').split('?').slice(1).join('?'))) {
    if (!parameters.includes(name)) {
      const near = suggestion(name, parameters);
      throw new QueryRefused('bad_query', `there is no parameter ${plain(name)}${near || `; there are ${parameters.join(', ')}`}`, {
        field: plain(name),
      });
    }
    if (value.includes('\0')) throw new QueryRefused('bad_query', `${name} must not contain the character NUL`, { field: name });
    given.set(name, [...(given.get(name) ?? []), value]);
  }
  const minSeq = given.get('minSeq');
  if (minSeq && !/^\d{1,15}$/.test(minSeq.join())) throw badMinSeq();
  const texts = [...given].filter(([name]) => name !== 'minSeq').map(([name, values]) => [name, values.length === 1 ? values[0] : values]);
  const { input, faults } = queryFromUrl(Object.fromEntries(texts) as Record<string, string | readonly string[]>);
  if (faults) throw refusalOf('bad_query', faults);
  return { input, minSeq: minSeq && Number(minSeq[0]) };
}

/** As much of a name as goes into a message. */
function plain(name: string): string {
  return name.replaceAll('\0', '').slice(0, 60);
}

function badMinSeq(): QueryRefused {
  return new QueryRefused('bad_query', 'minSeq must be a sequence of the log: a whole number from 0', { field: 'minSeq' });
}

/** Items are JSON already. Those of an answer that is kept are sent again and again. */
function send({ encoded }: Shared, reply: FastifyReply, { items, next, asOf, cache }: QueryAnswer): FastifyReply {
  let start = encoded.get(items);
  if (!start) encoded.set(items, (start = Buffer.from(`{"items":[${items.join(',')}],"next":`)));
  const end = Buffer.from(`${JSON.stringify(next ?? null)},"asOf":${asOf ?? null},"cache":"${cache}"}`);
  return reply.type('application/json; charset=utf-8').send(Buffer.concat([start, end]));
}
