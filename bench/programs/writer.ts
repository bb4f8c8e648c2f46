import { setTimeout as sleep } from 'node:timers/promises';
import { connectPostgres, type PgClient } from '../../pipeline/clients/postgres.ts';
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

/** Each of its connections runs one statement after the other. */
interface Connection {
  readonly client: PgClient;
  waiting: number;
  /** Settles when it has nothing left to do. */
  idle: Promise<unknown>;
}

const { url, commits, rate } = await order<WriterOrder>();
const pool: Connection[] = [];
for (let i = 0; i < connections; i++)
  pool.push({ client: await connectPostgres(url, 'headwater bench writer', silentLogger()), waiting: 0, idle: Promise.resolve() });
tell(await write());
await Promise.all(pool.map(({ client }) => client.end()));

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
  const connection = pool.reduce((least, each) => (each.waiting < least.waiting ? each : least));
  connection.waiting++;
  const query = inserts
    ? { ...insert, values: [id, `TOKEN${id % 5_000}-USD`, price, `quote ${n} of the latency bench`] }
    : { ...update, values: [id, price] };
  connection.idle = connection.idle.then(() => connection.client.query(query));
  await connection.idle;
  returnedAt[n] = Number(process.hrtime.bigint());
  connection.waiting--;
}
