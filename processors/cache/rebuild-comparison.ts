import { randomUUID } from 'node:crypto';
import { unexpectedAnswer, untilRedisAnswers, type RedisClient } from '../../pipeline/clients/redis.ts';
import { difference, type Comparison, type Difference, type Steering } from '../../pipeline/runner/rebuild/model.ts';
import { Findings } from '../../pipeline/runner/rebuild/findings.ts';
import { overtaken } from '../../pipeline/runner/rebuild/refusals.ts';
import { scanKeys, type Ask } from '../../pipeline/runner/redis-scan.ts';
import { compareScript } from './rebuild-scripts.ts';

/** So many rows are compared in one call, or fewer when they are large (see `compareScript`), during which Redis answers nobody else. Two calls under way at once were no faster on a busy machine. */
const pageRows = 100;
/** So few rows change places within some 25 ms: it is not worth while to look at them again. */
const few = 1_000;
/** Looking again is given up when more than this share is left. */
const shrinks = 0.7;

export interface ComparedCaches {
  readonly client: RedisClient;
  readonly prefixes: readonly [live: string, beside: string];
  /** Keys of the offsets, and of the record of what stands beside. */
  readonly keys: readonly [live: string, beside: string, record: string];
  /** What stands beside, as the record says. */
  readonly standing: string;
}

export type Shown = Pick<Steering, 'signal' | 'log' | 'progress'>;

/** Compares the rows of two caches, and notes in Redis which of them differ, or may by now. Rows say of which sequence they are, so neither has to stand still. */
export class CacheComparison {
  readonly #caches: ComparedCaches;
  readonly #shown: Shown;
  readonly #ask: Ask;
  /** A name of its own, for its calls. */
  readonly #id = randomUUID();
  readonly #findings = new Findings();
  #pages = 0;

  constructor(caches: ComparedCaches, shown: Shown) {
    this.#caches = caches;
    this.#shown = shown;
    this.#ask = (attempt) => untilRedisAnswers(attempt, shown);
  }

  get comparison(): Comparison {
    return this.#findings.comparison;
  }

  /** How often it has asked Redis to compare rows, which has counted as many, unless it has lost some of it. */
  get pages(): number {
    return this.#pages;
  }

  /** Compares all rows: first those that should be there, then those that are there and should not be, then what has changed meanwhile. */
  async run(): Promise<void> {
    const [live, beside] = this.#caches.prefixes;
    const findings = this.#findings;
    await this.#scan(beside, (rows, share) => {
      findings.compared += rows;
      const { compared, differences } = findings;
      this.#shown.progress(`${percent(share)}, ${count(compared)} rows compared, ${count(differences)} differ`);
    });
    let looked = 0;
    await this.#scan(live, (rows, share) => {
      looked += rows;
      const of = Math.max(findings.compared, looked);
      this.#shown.progress(
        `${percent(share)} of the live rows, ${count(looked)} of about ${count(of)} checked for what should not be there, ${count(findings.differences)} differ`,
      );
    });
    findings.moving = await this.settle();
  }

  /**
   * Looks again at rows that may differ by now, until few are left, or no fewer than before: those that are equal need not change places.
   * @returns how many of them differ while one of the two cannot have seen the change yet
   */
  async settle(): Promise<number> {
    let moving = 0;
    for (let before = Infinity; ;) {
      const tables = await this.#touched();
      const rows = tables.reduce((sum, [, size]) => sum + size, 0);
      if (rows === 0) return 0;
      if (before < Infinity && (rows <= few || rows > before * shrinks)) return moving;
      before = rows;
      moving = await this.#lookAgain(tables, rows);
    }
  }

  async #lookAgain(tables: readonly (readonly [string, number])[], rows: number): Promise<number> {
    const { client, prefixes } = this.#caches;
    let [moving, done] = [0, 0];
    for (const [table] of tables) {
      let cursor = '0';
      do {
        const from = cursor;
        const [next, keys] = await this.#ask(() => client.sscan(`${prefixes[1]}:touched:${table}`, from, 'COUNT', pageRows));
        cursor = next;
        done += keys.length;
        moving += await this.#judge(
          keys.map((key) => `${table}:${key}`),
          false,
        );
        const share = percent(done / rows);
        this.#shown.progress(`${share} of ${count(rows)} rows that have changed meanwhile looked at again`);
      } while (cursor !== '0');
    }
    return moving;
  }

  /** Tables with rows that may differ by now, and how many. */
  async #touched(): Promise<readonly (readonly [string, number])[]> {
    const { client, prefixes } = this.#caches;
    const tables = await this.#ask(() => client.smembers(`${prefixes[1]}:judged`));
    return Promise.all(
      tables.map(async (table) => [table, await this.#ask(() => client.scard(`${prefixes[1]}:touched:${table}`))] as const),
    );
  }

  /** All rows of one of the two; of those of the live cache only the ones that are not beside. */
  async #scan(prefix: string, onPage: (rows: number, share: number) => void): Promise<void> {
    const { client, prefixes } = this.#caches;
    let [share, rows] = [0, 0];
    const onLook = (looked: number): void => {
      share = looked;
      onPage(rows, share);
      rows = 0;
    };
    for await (const found of scanKeys(client, prefix, 'row:*', { onLook, ask: this.#ask })) {
      await this.#judge(
        found.map((key) => key.slice(prefix.length + ':row:'.length)),
        prefix === prefixes[0],
      );
      rows = found.length;
    }
    onPage(rows, 1);
  }

  /** Returns how many differ while one of the two cannot have seen the change yet. */
  async #judge(rows: readonly string[], others: boolean): Promise<number> {
    const { client, keys, prefixes, standing } = this.#caches;
    let moving = 0;
    for (let rest = rows; rest.length > 0;) {
      this.#shown.signal.throwIfAborted();
      const { args, order } = byTable(rest.slice(0, pageRows));
      const about = [standing, ...prefixes, `${this.#id}:${++this.#pages}`, others ? 1 : ''];
      const answer = await this.#ask(() => compareScript.run(client, keys, [...about, ...args]));
      if (Buffer.isBuffer(answer) && answer.toString() === 'overtaken') throw overtaken('cache');
      if (!Array.isArray(answer)) throw unexpectedAnswer('a comparison', answer);
      const [done = 0, touched = 0, ...different] = answer as number[];
      for (const number of different) await this.#findings.add(() => this.#ask(() => describe(client, prefixes, order[number]!)));
      moving += touched;
      // A call looks at little more than a megabyte.
      rest = [...order.slice(done), ...rest.slice(order.length)];
    }
    return moving;
  }
}

/** Rows `<table>:<key>` as the script takes them, and in which order. */
function byTable(rows: readonly string[]): { readonly args: readonly (string | number)[]; readonly order: readonly string[] } {
  const tables = new Map<string, string[]>();
  for (const row of rows) {
    const table = row.slice(0, Math.max(0, row.indexOf(':')));
    const found = tables.get(table);
    if (found) found.push(row);
    else tables.set(table, [row]);
  }
  const args = [...tables].flatMap(([table, found]) => [table, found.length, ...found.map((row) => row.slice(table.length + 1))]);
  return { args, order: [...tables.values()].flat() };
}

const percent = (share: number): string => `${Math.floor(Math.min(1, share) * 100)} %`;
const count = (value: number): string => value.toLocaleString('en-US');

async function describe(client: RedisClient, prefixes: ComparedCaches['prefixes'], row: string): Promise<Difference> {
  const [live, beside] = await Promise.all(prefixes.map((prefix) => client.hmget(`${prefix}:row:${row}`, 'seq', 'event')));
  const text = (found: readonly (string | null)[] | undefined): string | undefined =>
    found?.[1] == null ? undefined : `seq ${found[0]} ${found[1]}`;
  const colon = row.indexOf(':');
  return difference(
    `${row.slice(0, colon).replaceAll('%3A', ':').replaceAll('%25', '%')}/${row.slice(colon + 1)}`,
    text(live),
    text(beside),
  );
}
