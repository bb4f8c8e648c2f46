import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { HeadwaterError } from '../../../pipeline/runtime/errors.ts';
import { mayRead, sendError, type Principal, type Routes } from '../../../pipeline/runtime/http.ts';
import type { Logger } from '../../../pipeline/runtime/logging.ts';
import { entryFor, ownSchema, type Catalog } from '../../../schemas/catalog.ts';
import { printDuration } from '../../../schemas/duration.ts';
import { suggestion } from '../../../schemas/nearest.ts';
import { RequestFault } from '../../../pipeline/runtime/request-fault.ts';
import { readQuery } from '../../../pipeline/runtime/request-query.ts';
import { shownLevels, type Definition } from '../model.ts';
import type { AggregateItem } from '../read/items.ts';
import type { AggregateReader } from '../read/reader.ts';
import type { AggregateView } from '../read/view.ts';
import { csvOf } from './csv.ts';
import { gapsOf, type Gap } from './gaps.ts';
import { formatOf, latestQuery, seriesQuery } from './parameters.ts';

export interface AggregateRoutesParts {
  readonly reader: AggregateReader;
  readonly catalog: Catalog;
  readonly log: Logger;
}

/** What is sent of a list. */
interface List {
  readonly definition: Definition;
  readonly items: readonly AggregateItem[];
  /** Whether items say their sizes. */
  readonly sized: boolean;
  readonly next: string | undefined;
  readonly seq: number;
  readonly gaps?: readonly Gap[];
}

interface Named {
  Params: { name: string };
}

/**
 * `GET /v2/aggregates`, `/v2/aggregates/<name>`, `/v2/aggregates/<name>/latest` (docs/aggregates.md). A key needs the scope `read`,
 * `read:aggregates:<name>`, or that of the table's channel.
 */
export function aggregateRoutes({ reader, catalog, log }: AggregateRoutesParts): Routes {
  return async (app) => {
    await app.register((scope, _options, done) => {
      answerFaults(scope, log);
      scope.get('/v2/aggregates', async (request, reply) => {
        readQuery(request);
        const definitions = await reader.definitions();
        return reply.send({ items: definitions.filter((definition) => isReader(request.principal, definition, catalog)).map(described) });
      });
      scope.get<Named>('/v2/aggregates/:name', (request, reply) => answer(request, reply, series));
      scope.get<Named>('/v2/aggregates/:name/latest', (request, reply) => answer(request, reply, latest));
      done();
    });
  };

  async function answer(
    request: FastifyRequest<Named>,
    reply: FastifyReply,
    read: (view: AggregateView, request: FastifyRequest) => Promise<List>,
  ): Promise<FastifyReply> {
    const { name } = request.params;
    const list = await reader.use(name, (view) => {
      if (!isReader(request.principal, view.definition, catalog))
        throw new RequestFault(
          'forbidden',
          `this key may not read the aggregate ${name}: it needs the scope read or read:aggregates:${name}`,
        );
      return read(view, request);
    });
    if (list) return send(request, reply, list);
    const names = (await reader.definitions()).map((definition) => definition.name);
    throw new RequestFault('not_found', `there is no aggregate ${name}${suggestion(name, names)}`);
  }
}

async function series(view: AggregateView, request: FastifyRequest): Promise<List> {
  const { definition } = view;
  const query = seriesQuery(request, definition);
  const page = await view.series(query);
  return {
    definition,
    items: page.items.map(({ item }) => item),
    sized: false,
    next: page.next === undefined ? undefined : query.cursorAt(page.next),
    seq: page.seq,
    gaps: gapsOf(page, query),
  };
}

async function latest(view: AggregateView, request: FastifyRequest): Promise<List> {
  const { definition } = view;
  const query = latestQuery(request, definition);
  const { groups, next, seq } = await view.latest(query);
  const items = groups.flatMap(({ windows, sliding }) => [
    ...windows.map(({ size, item: { by, ...rest } }) => ({ by, window: size, ...rest })),
    ...sliding.map(({ size, item: { by, ...rest } }) => ({ by, sliding: size, ...rest })),
  ]);
  return { definition, items, sized: true, next: next === undefined ? undefined : query.cursorAfter(next), seq };
}

function send(request: FastifyRequest, reply: FastifyReply, { definition, items, sized, next, seq, gaps }: List): FastifyReply {
  void reply.header('vary', 'Accept');
  if (formatOf(request) === 'json') return reply.send({ items, next: next ?? null, seq, ...(gaps && { gaps }) });
  void reply.header('headwater-seq', String(seq));
  if (next !== undefined) void reply.header('headwater-next', next);
  return reply.type('text/csv; charset=utf-8').send(csvOf(definition, items, sized));
}

/** A definition as applications see it. */
function described(definition: Definition): object {
  const { name, table, by, value, time, of, sliding, functions } = definition;
  const levels = shownLevels(definition);
  return {
    name,
    table,
    by,
    ...(value !== undefined && { value }),
    ...(time !== undefined && { time }),
    of,
    windows: levels.map(({ text }) => text),
    sliding: sliding.map(({ text }) => text),
    functions,
    retention: Object.fromEntries(levels.map(({ text, keep }) => [text, printDuration(keep)])),
    channel: `aggregates:${name}`,
  };
}

function isReader(principal: Principal, { name, table }: Definition, catalog: Catalog): boolean {
  if (mayRead(principal, `aggregates:${name}`)) return true;
  const dot = table.indexOf('.');
  const schema = table.slice(0, dot);
  const { channel } = entryFor(catalog, schema, table.slice(dot + 1));
  // What is in Headwater's own tables belongs to someone.
  return schema !== ownSchema && channel !== undefined && mayRead(principal, channel);
}

function answerFaults(scope: FastifyInstance, log: Logger): void {
  scope.setErrorHandler((error: FastifyError | RequestFault | HeadwaterError, request, reply) => {
    if (error instanceof RequestFault) return sendError(reply, error.code, error.message, error.field);
    // What is not ours is for the gateway's handler.
    if (!(error instanceof HeadwaterError) || error.reaction !== 'retry') throw error;
    log.warn({ error: error.message, path: request.routeOptions.url }, 'an aggregate could not be read');
    return sendError(
      reply.header('retry-after', '1'),
      'unavailable',
      `the aggregate cannot be read now, try again: ${error.code === 'redis_unavailable' ? 'Redis is away' : error.message}`,
    );
  });
}
