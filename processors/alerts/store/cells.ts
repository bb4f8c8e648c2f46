import type { Queryable } from '../../../pipeline/clients/postgres.ts';

/** A row's values, in the order of some columns. */
export type Cells = readonly (string | number | null)[];

/** Column → type. */
export type Columns = Readonly<Record<string, string>>;

/** Most of one statement: what is sent is held twice, here and in the server. */
const most = { rows: 5_000, characters: 4 * 1024 ** 2 };

/** Items in groups that are small enough for one statement, in order. */
export function* chunksOf<T>(items: Iterable<T>, measure: (item: T) => number): Generator<T[], void, undefined> {
  let [chunk, size]: [T[], number] = [[], 0];
  for (const item of items) {
    chunk.push(item);
    size += measure(item);
    if (chunk.length < most.rows && size < most.characters) continue;
    yield chunk;
    [chunk, size] = [[], 0];
  }
  if (chunk.length > 0) yield chunk;
}

/** How much a row is, roughly. */
function sizeOf(cells: Cells): number {
  return cells.reduce<number>((sum, cell) => sum + (typeof cell === 'string' ? cell.length : 8), 0);
}

/**
 * `unnest($first::type[], …)`: rows as one array a column. JSON goes in as text of its own, since functions that take JSON apart
 * refuse U+0000 anywhere in it, which a column of type json may well hold.
 */
export function unnest(columns: Columns, first = 1): string {
  const parameters = Object.values(columns).map((type, i) => `$${first + i}::${type}[]`);
  return `unnest(${parameters.join(', ')})`;
}

/** The parameters for `unnest`. */
export function arraysOf(rows: readonly Cells[]): (string | number | null)[][] {
  return (rows[0] ?? []).map((_, i) => rows.map((row) => row[i]!));
}

/** One of the tables of state: `processor`, a key and data. */
export class StateTable {
  readonly #name: string;
  readonly #key: Columns;
  readonly #data: Columns;

  constructor(name: string, key: Columns, data: Columns) {
    this.#name = `headwater.${name}`;
    this.#key = key;
    this.#data = data;
  }

  /** Inserts rows (key, then data), or changes those that are there. */
  async save(client: Queryable, processor: string, rows: Iterable<Cells>): Promise<void> {
    const columns = { ...this.#key, ...this.#data };
    const changes = Object.keys(this.#data).map((name) => `${name} = excluded.${name}`);
    await run(
      client,
      `INSERT INTO ${this.#name} (processor, ${namesOf(columns)}) SELECT $1, * FROM ${unnest(columns, 2)}
       ON CONFLICT (processor, ${namesOf(this.#key)}) DO UPDATE SET ${changes.join(', ')}`,
      processor,
      rows,
    );
  }

  /** Deletes rows by their keys, or all that begin with these values of a key. */
  async remove(client: Queryable, processor: string, keys: Iterable<Cells>, length = Object.keys(this.#key).length): Promise<void> {
    const key = Object.fromEntries(Object.entries(this.#key).slice(0, length));
    const same = Object.keys(key).map((name) => `s.${name} = k.${name}`);
    await run(
      client,
      `DELETE FROM ${this.#name} s USING ${unnest(key, 2)} AS k(${namesOf(key)}) WHERE s.processor = $1 AND ${same.join(' AND ')}`,
      processor,
      keys,
    );
  }
}

async function run(client: Queryable, sql: string, processor: string, rows: Iterable<Cells>): Promise<void> {
  for (const chunk of chunksOf(rows, sizeOf)) await client.query(sql, [processor, ...arraysOf(chunk)]);
}

function namesOf(columns: Columns): string {
  return Object.keys(columns).join(', ');
}

/** JSON, as JSON.stringify gives it, that jsonb takes, too: without U+0000 and halves of surrogate pairs, which a column of type json can hold. */
export function forJsonb(json: string): string {
  return json.includes('\\u') ? json.replace(/(?<!\\)((?:\\\\)*)\\u(?:0000|d[89a-f]..)/gu, '$1\\ufffd') : json;
}

/** Microseconds since 1970 as `2026-11-22T12:00:00.123456Z`. */
export function timestampOf(micros: number): string {
  const ms = Math.floor(micros / 1_000);
  const rest = String(micros - ms * 1_000).padStart(3, '0');
  return `${new Date(ms).toISOString().slice(0, -1)}${rest}Z`;
}
