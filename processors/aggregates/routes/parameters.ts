import type { FastifyRequest } from 'fastify';
import { parseMoment } from '../../../schemas/condition/instant.ts';
import { suggestion } from '../../../schemas/nearest.ts';
import { badRequest } from '../../../pipeline/runtime/request-fault.ts';
import { instantOf, readQuery, type Query } from '../../../pipeline/runtime/request-query.ts';
import { shownLevels, type Definition, type Level, type Micros, type Sliding } from '../model.ts';
import type { Condition, LatestRequest, SeriesRequest } from '../read/pages.ts';
import { isNumber } from '../read/view.ts';
import { Cursors } from './cursors.ts';

const mostItems = 1_000;
const usualItems = 100;

const shared = ['window', 'sliding', 'limit', 'cursor', 'format', 'isNull'] as const;
const ofSeries = ['from', 'to'] as const;
const reserved: readonly string[] = [...shared, ...ofSeries];

/** A request for a series, and what makes the cursor of its next page. */
export interface SeriesQuery extends SeriesRequest {
  /** Between the beginnings of windows that follow each other. */
  readonly step: Micros;
  cursorAt(start: Micros): string;
}

export interface LatestQuery extends LatestRequest {
  cursorAfter(group: string): string;
}

/**
 * The parameters of a series: a value for each column of `by`, and a size.
 * @throws RequestFault `bad_request`
 */
export function seriesQuery(request: FastifyRequest, definition: Definition): SeriesQuery {
  const query = readQuery(request, [...shared, ...ofSeries, ...columnNames(definition)]);
  const values = byValues(query, definition);
  const missing = definition.by.filter((column) => !values.has(column));
  if (missing.length > 0) {
    const [first] = missing as [string];
    throw badRequest(
      `a series is of one group: give ${missing.join(' and ')} too (${parameterOf(first)}=…, or isNull=${first}); /latest has all groups`,
      parameterOf(first),
    );
  }
  const size = sizeOf(query, definition);
  const step = 'window' in size ? size.window.micros : definition.levels[0]!.micros;
  const [from, to] = [instant(query, 'from'), instant(query, 'to')];
  if (from !== undefined && to !== undefined && from > to) throw badRequest('from is later than to', 'from');
  const cursors = new Cursors(query, definition);
  const after = cursors.open((position) => (/^-?\d{1,16}$/.test(position) ? Number(position) : undefined));
  return {
    groups: spellings(definition.by.map((column) => values.get(column) ?? null)),
    size,
    from: after ?? from,
    to,
    limit: query.count('limit', 1, mostItems) ?? usualItems,
    step,
    cursorAt: (start) => cursors.make(String(start)),
  };
}

/**
 * The parameters of the newest windows: any columns of `by`, and a size or all.
 * @throws RequestFault `bad_request`
 */
export function latestQuery(request: FastifyRequest, definition: Definition): LatestQuery {
  const query = readQuery(request, [...shared, ...columnNames(definition)]);
  const values = byValues(query, definition);
  const size = query.text('window') === undefined && query.text('sliding') === undefined ? undefined : sizeOf(query, definition);
  const all = definition.by.every((column) => values.has(column));
  const conditions: Condition[] = all
    ? []
    : [...values].map(([column, text]) => ({ position: definition.by.indexOf(column), text: text ?? undefined }));
  const cursors = new Cursors(query, definition);
  return {
    groups: all ? spellings(definition.by.map((column) => values.get(column) ?? null)) : [],
    conditions,
    windows: size ? ('window' in size ? [size.window] : []) : shownLevels(definition),
    sliding: size ? ('sliding' in size ? [size.sliding] : []) : definition.sliding,
    after: cursors.open((position) => (position.startsWith('[') ? position : undefined)),
    limit: query.count('limit', 1, mostItems) ?? usualItems,
    cursorAfter: (group) => cursors.make(group),
  };
}

/** `csv` when the request asks for it by `format` or, without it, by its header. */
export function formatOf(request: FastifyRequest): 'json' | 'csv' {
  const format = new URLSearchParams(request.url.split('?').slice(1).join('?')).get('format');
  if (format === null) return /(^|,)\s*text\/csv\s*(;|,|$)/i.test(request.headers.accept ?? '') ? 'csv' : 'json';
  if (format !== 'json' && format !== 'csv') throw badRequest('format must be json or csv', 'format');
  return format;
}

/** How a column is asked for: by its name, unless that means something else here. */
function parameterOf(column: string): string {
  return reserved.includes(column) ? `by.${column}` : column;
}

function columnNames({ by }: Definition): readonly string[] {
  return by.flatMap((column) => (reserved.includes(column) ? [`by.${column}`] : [column, `by.${column}`]));
}

/** Column → the text it is asked for by, null where it is to be null. */
function byValues(query: Query, { by }: Definition): ReadonlyMap<string, string | null> {
  const values = new Map<string, string | null>();
  for (const column of by) {
    const [plain, prefixed] = [reserved.includes(column) ? undefined : query.text(column), query.text(`by.${column}`)];
    if (plain !== undefined && prefixed !== undefined)
      throw badRequest(`${column} is given twice: as ${column} and as by.${column}`, column);
    const text = plain ?? prefixed;
    if (text !== undefined) values.set(column, text);
  }
  for (const column of query.text('isNull')?.split(',') ?? []) {
    if (!by.includes(column)) throw badRequest(`isNull names ${column}, which is not in by${suggestion(column, by)}`, 'isNull');
    if (values.has(column)) throw badRequest(`${column} cannot both be null and have a value`, 'isNull');
    values.set(column, null);
  }
  return values;
}

function sizeOf(query: Query, definition: Definition): SeriesRequest['size'] {
  const [window, sliding] = [query.text('window'), query.text('sliding')];
  if (window !== undefined && sliding !== undefined) throw badRequest('give window or sliding, not both', 'sliding');
  const levels = shownLevels(definition);
  if (sliding !== undefined) return { sliding: named('sliding', sliding, definition.sliding) };
  if (window !== undefined) return { window: named('window', window, levels) };
  const [shortest] = levels;
  return shortest ? { window: shortest } : { sliding: definition.sliding[0]! };
}

function named<Size extends Level | Sliding>(name: string, wanted: string, sizes: readonly Size[]): Size {
  const found = sizes.find(({ text }) => text === wanted);
  if (found) return found;
  const known = sizes.map(({ text }) => text);
  throw badRequest(known.length === 0 ? `this aggregate has no ${name} sizes` : `${name} must be one of ${known.join(', ')}`, name);
}

/** ISO 8601 with a zone, or milliseconds since 1970. */
function instant(query: Query, name: string): Micros | undefined {
  const text = query.text(name);
  if (text === undefined) return undefined;
  if (/^\d{1,13}$/.test(text)) return Number(text) * 1_000;
  const moment = instantOf(text) === undefined ? undefined : parseMoment(text);
  if (typeof moment?.instant === 'number') return moment.instant;
  throw badRequest(
    `${name} must be a time with its zone, like 2026-11-22T12:00:00Z (a + is written %2B), or milliseconds since 1970`,
    name,
  );
}

/** What a group with these values may be called: a text can stand for a number or a truth value, too. */
function spellings(values: readonly (string | null)[]): readonly string[] {
  const each = values.map((value) => {
    if (value === null) return ['null'];
    const others = value === 'true' || value === 'false' ? [value] : isNumber(value) ? [JSON.stringify(Number(value))] : [];
    return [JSON.stringify(value), ...others];
  });
  return each
    .reduce<readonly string[]>((found, next) => found.flatMap((head) => next.map((one) => (head === '' ? one : `${head},${one}`))), [''])
    .map((list) => `[${list}]`);
}
