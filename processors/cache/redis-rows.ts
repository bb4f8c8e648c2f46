import type { Seq } from '../../pipeline/log/event-log.ts';
import { RedisScript, unexpectedAnswer, type RedisClient } from '../../pipeline/clients/redis.ts';
import type { CachedRow, ReadRows, RowSource, RowsPosition } from '../../pipeline/runner/row-source.ts';
import { RedisKeys } from '../../pipeline/runner/redis-keys.ts';
import { HeadwaterError } from '../../pipeline/runtime/errors.ts';
import type { Catalog } from '../../schemas/catalog.ts';
import { isCached } from './fold.ts';
import { cacheKeys, encodeTable } from './redis-cache.ts';

/** Atomic, so that the row and the position it is given with belong together. What is left of a table that is no longer cached is nothing. */
const rowScript = new RedisScript(`#!lua flags=no-writes
if redis.call('SISMEMBER', KEYS[4], ARGV[1]) == 1 then return {redis.call('HGET', KEYS[1], 'seq')} end
local row = redis.call('HMGET', KEYS[2], 'seq', 'event')
return {redis.call('HGET', KEYS[1], 'seq'), row[1], row[2], redis.call('HGET', KEYS[3], ARGV[1])}`);

/** Rows of the given keys, as many as make up a page: position, epoch, making, how many keys were looked at, then sequence and event of each row. */
const pageScript = new RedisScript(`#!lua flags=no-writes
local offset = redis.call('HMGET', KEYS[1], 'seq', 'epoch', 'making')
local truncated = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or 0)
local page, bytes = {offset[1], offset[2], offset[3], 0}, 0
for n = 3, #ARGV do
  local row = redis.call('HMGET', ARGV[2] .. ARGV[n], 'seq', 'event')
  page[4] = n - 2
  if row[2] and tonumber(row[1]) > truncated then
    page[#page + 1] = row[1]
    page[#page + 1] = row[2]
    bytes = bytes + #row[2]
  end
  if bytes > 1048576 then break end
end
return page`);

/** How many keys are asked for at once. Redis gives all keys of a small table, and about as many of a large one. */
const pageRows = 500;

/** What the cache knows of one row. `asOf`: every event up to there is folded in; undefined while nothing is. */
export type CachedAnswer = { readonly asOf: Seq | undefined } & (
  | { readonly known: 'row'; readonly seq: Seq; readonly event: Buffer }
  /** It was deleted, or its table truncated. */
  | { readonly known: 'absent' }
  | { readonly known: 'nothing' }
);

/** The cache in Redis, as its readers see it. */
export class RedisRows implements RowSource {
  readonly #client: RedisClient;
  readonly #catalog: Catalog;
  readonly #keys: RedisKeys;

  constructor(client: RedisClient, catalog: Catalog, keys: RedisKeys = new RedisKeys()) {
    this.#client = client;
    this.#catalog = catalog;
    this.#keys = keys;
  }

  /** One row by its encoded key. */
  async row(table: string, key: string): Promise<CachedAnswer> {
    const { prefix } = this.#keys;
    const keys = [this.#offset, cacheKeys.row(prefix, table, key), cacheKeys.truncated(prefix), cacheKeys.uncached(prefix)];
    const answer = await rowScript.run(this.#client, keys, [encodeTable(table)]);
    const [position, rowSeq, event, truncated] = asBuffers(answer, 'a row');
    const asOf = position ? Number(position) : undefined;
    if (!rowSeq) return { asOf, known: 'nothing' };
    const seq = Number(rowSeq);
    return event && seq > Number(truncated ?? 0) ? { asOf, known: 'row', seq, event } : { asOf, known: 'absent' };
  }

  async position(): Promise<RowsPosition | undefined> {
    const [seq, epoch, from, making] = await this.#client.hmget(this.#offset, 'seq', 'epoch', 'from', 'making');
    if (seq == null || epoch == null || from == null) return undefined;
    return { seq: Number(seq), epoch, from: Number(from), ...(making != null && { making }) };
  }

  async holds(table: string): Promise<boolean> {
    const dot = table.indexOf('.');
    if (!isCached(this.#catalog, table.slice(0, dot), table.slice(dot + 1))) return false;
    return (await this.#client.sismember(cacheKeys.uncached(this.#keys.prefix), encodeTable(table))) === 0;
  }

  /**
   * Redis gives every key that is there all the while at least once. Rejects with `rows_interrupted` when the cache is
   * emptied or begun anew meanwhile, or stops holding the table: what is missing then cannot be known; and when a rebuilt one takes its place.
   */
  async *rows(table: string, { signal, of }: ReadRows = {}): AsyncGenerator<readonly CachedRow[], void, undefined> {
    const { prefix } = this.#keys;
    const begun = of ?? (await this.position());
    let cursor = '0';
    do {
      signal?.throwIfAborted();
      const [next, keys] = await this.#client.sscan(cacheKeys.keys(prefix, table), cursor, 'COUNT', pageRows);
      cursor = next;
      for (let done = 0; done < keys.length || cursor === '0';) {
        const page = await this.#page(table, keys.slice(done, done + pageRows));
        if (!continues(begun, page)) throw interrupted(table);
        if (page.rows.length > 0) yield page.rows;
        done += page.keys;
        if (done >= keys.length) break;
        signal?.throwIfAborted();
      }
    } while (cursor !== '0');
    // In this order: a cache that is emptied after the first answer has no position in the second.
    if (!(await this.holds(table)) || !continues(begun, await this.position())) throw interrupted(table);
  }

  async #page(table: string, keys: readonly string[]): Promise<Page> {
    const { prefix } = this.#keys;
    const answer = await pageScript.run(
      this.#client,
      [this.#offset, cacheKeys.truncated(prefix)],
      [encodeTable(table), cacheKeys.row(prefix, table, ''), ...keys],
    );
    const [seq, epoch, making, looked, ...found] = asBuffers(answer, 'a page of rows');
    const offset = { seq: Number(seq), epoch: epoch?.toString() ?? '', ...(making && { making: making.toString() }) };
    return { ...offset, keys: Number(looked), rows: pairs(found) };
  }

  get #offset(): string {
    return this.#keys.offset('cache');
  }
}

type Offset = Pick<RowsPosition, 'seq' | 'epoch' | 'making'>;

interface Page extends Offset {
  /** How many keys were looked at. */
  readonly keys: number;
  readonly rows: readonly CachedRow[];
}

/** Is it the cache that it was, though further perhaps? */
function continues(begun: Offset | undefined, now: Offset | undefined): boolean {
  return begun !== undefined && now !== undefined && now.epoch === begun.epoch && now.making === begun.making && now.seq >= begun.seq;
}

function interrupted(table: string): HeadwaterError {
  return new HeadwaterError(
    'rows_interrupted',
    `the cache was emptied, begun anew, rebuilt, or stopped holding ${table} while it was read`,
    {
      reaction: 'retry',
      hint: 'read it again from the beginning',
    },
  );
}

function pairs(flat: readonly (Buffer | null)[]): readonly CachedRow[] {
  const rows: CachedRow[] = [];
  for (let i = 0; i + 1 < flat.length; i += 2) rows.push({ seq: Number(flat[i]), event: flat[i + 1]! });
  return rows;
}

function asBuffers(answer: unknown, what: string): readonly (Buffer | null)[] {
  if (!Array.isArray(answer)) throw unexpectedAnswer(what, answer);
  return answer as readonly (Buffer | null)[];
}
