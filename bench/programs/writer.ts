import { setTimeout as sleep } from 'node:timers/promises';
import { createPool } from '../../pipeline/clients/postgres.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { commitOf, order, tell, type Commits } from './commits.ts';

export interface WriterOrder {
  readonly url: string;
  readonly commits: Commits;
  /** Commits a second. They are due at fixed times, whether the ones before are done or not. */
  readonly rate: number;
}

export interface Written {
  /** When each COMMIT returned, in ns of the monotonic clock. */
  readonly returnedAt: Float64Array;
  readonly seconds: number;
}

const connections = 4;
const insert = { name: 'insert', text: 'INSERT INTO public.quotes VALUES ($1, $2, $3, $4, now())' };
const update = { name: 'update', text: 'UPDATE public.quotes SET price = $2, quoted_at = now() WHERE id = $1' };

const { url, commits, rate } = await order<WriterOrder>();
const pool = createPool(url, 'headwater bench writer', silentLogger(), connections);
await Promise.all(Array.from({ length: connections }, () => pool.query('SELECT pg_sleep(0.05)')));
tell(await write());
await pool.end();

async function write(): Promise<Written> {
  const returnedAt = new Float64Array(commits.count);
  const begun = performance.now();
  const pending: Promise<void>[] = [];
  for (let n = 0; n < commits.count;) {
    const due = Math.min(commits.count, Math.floor(((performance.now() - begun) / 1_000) * rate) + 1);
    for (; n < due; n++) pending.push(commit(n, returnedAt));
    await sleep(1);
  }
  await Promise.all(pending);
  return { returnedAt, seconds: (performance.now() - begun) / 1_000 };
}

/** One statement is one transaction: its answer comes when it is committed and flushed. */
async function commit(n: number, returnedAt: Float64Array): Promise<void> {
  const { insert: inserts, id } = commitOf(commits, n);
  const price = (100 + (n % 10_000) / 7).toFixed(8);
  await (inserts
    ? pool.query({ ...insert, values: [id, `TOKEN${id % 5_000}-USD`, price, `quote ${n} of the latency bench`] })
    : pool.query({ ...update, values: [id, price] }));
  returnedAt[n] = Number(process.hrtime.bigint());
}
