import { unexpectedAnswer, type RedisClient } from '../../pipeline/clients/redis.ts';
import { difference, type Comparison, type Difference } from '../../pipeline/runner/rebuild/model.ts';
import { Findings } from '../../pipeline/runner/rebuild/findings.ts';
import { scanKeys } from '../../pipeline/runner/redis-scan.ts';
import { compareScript } from './rebuild-scripts.ts';

const pageRows = 200;

export interface ComparedCaches {
  readonly client: RedisClient;
  readonly prefixes: readonly [live: string, beside: string];
  /** Keys of the offsets. */
  readonly offsets: readonly [live: string, beside: string];
}

interface Shown {
  readonly signal: AbortSignal;
  readonly progress: (text: string) => void;
}

interface ComparedPages {
  readonly comparison: Comparison;
  readonly pages: number;
}

/**
 * Compares the rows of two caches, and notes in Redis which of them differ, or may by now. Rows say of which sequence they are, so neither has to stand still.
 * @returns also how often it has asked for that: Redis has counted as many, unless it has lost some of it
 */
export async function compareRows({ client, prefixes, offsets }: ComparedCaches, { signal, progress }: Shown): Promise<ComparedPages> {
  const findings = new Findings();
  let pages = 0;
  const note = async (rows: readonly string[], others: boolean): Promise<number> => {
    pages++;
    const answer = await compareScript.run(client, offsets, [...prefixes, others ? 1 : '', ...rows]);
    if (!Array.isArray(answer)) throw unexpectedAnswer('a comparison', answer);
    const [touched = 0, ...different] = answer as number[];
    for (const number of different) await findings.add(() => describe(client, prefixes, rows[number - 1]!));
    return touched;
  };
  const [live, beside] = prefixes;
  // First all rows that should be there, then those that are there and should not be.
  for (const prefix of [beside, live]) {
    for await (const found of scanKeys(client, prefix, 'row:*')) {
      const rows = found.map((key) => key.slice(prefix.length + ':row:'.length));
      for (let at = 0; at < rows.length; at += pageRows) {
        signal.throwIfAborted();
        await note(rows.slice(at, at + pageRows), prefix === live);
      }
      if (prefix === beside) findings.compared += rows.length;
      progress(`${findings.compared} rows compared, ${findings.differences} differ`);
    }
  }
  findings.moving = await recheck(client, beside, (rows) => note(rows, false), signal);
  return { comparison: findings.comparison, pages };
}

/** What had changed while it was looked at is looked at again. Returns how much changes all the time. */
async function recheck(
  client: RedisClient,
  b: string,
  note: (rows: readonly string[]) => Promise<number>,
  signal: AbortSignal,
): Promise<number> {
  let moving = 0;
  for (const table of await client.smembers(`${b}:judged`)) {
    let cursor = '0';
    do {
      signal.throwIfAborted();
      const [next, keys] = await client.sscan(`${b}:touched:${table}`, cursor, 'COUNT', pageRows);
      cursor = next;
      if (keys.length > 0) moving += await note(keys.map((key) => `${table}:${key}`));
    } while (cursor !== '0');
  }
  return moving;
}

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
