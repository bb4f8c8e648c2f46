import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { startDemo } from '../../deploy/demo/demo.ts';
import { migrate } from '../../deploy/migrate.ts';
import { connectPostgres, createPool, type PgPool } from '../../pipeline/clients/postgres.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { freshDatabase, testServers, type FreshDatabase } from '../support/servers.ts';

describe('the demo market on Postgres', function () {
  this.timeout(120_000);
  const log = silentLogger();
  const signal = new AbortController().signal;
  let database: FreshDatabase;
  let pool: PgPool;

  before(async () => {
    database = await freshDatabase();
    await migrate(database.url, { demo: true, log });
    pool = createPool(database.url, 'test', log);
  });

  after(async () => {
    await pool.end();
    await database.drop();
  });

  /** All rows written to the demo's tables so far; the statistics of a connection are complete once it has ended. */
  async function written(): Promise<number> {
    const { rows } = await pool.query<{ count: string }>(
      `SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) AS count FROM pg_stat_user_tables WHERE schemaname = 'public'`,
    );
    return Number(rows[0]?.count ?? 0);
  }

  async function value<T>(sql: string): Promise<T | undefined> {
    return (await pool.query<{ value: T }>(sql)).rows[0]?.value;
  }

  it('fills the tables, then writes at about its rate; a second start goes on with what is there', async () => {
    const first = await startDemo({ url: database.url, rate: 100, log, signal });
    const tokens = await value<number>('SELECT count(*)::int AS value FROM public.tokens');
    await sleep(200);
    await first.stop();
    await sleep(100);
    const begun = await written();
    const second = await startDemo({ url: database.url, rate: 200, log, signal });
    const from = performance.now();
    await sleep(4_000);
    await second.stop();
    const seconds = (performance.now() - from) / 1_000;
    await sleep(100);
    // A burst at the end may have been paid for by nobody yet, and a busy machine may lose some time.
    expect(((await written()) - begun) / seconds, 'rows a second').to.be.within(120, 250);
    expect(Math.abs((await value<number>('SELECT count(*)::int AS value FROM public.tokens'))! - tokens!)).to.be.lessThan(10);
    expect(await value('SELECT count(*)::int AS value FROM public.prices WHERE price <= 0')).to.equal(0);
    expect(await value(`SELECT bool_and(token_id LIKE chain || ':%') AS value FROM public.prices`)).to.equal(true);
  });

  it('survives the loss of its connection at any moment, and stops at once while the database is away', async () => {
    const demo = await startDemo({ url: database.url, rate: 500, log, signal });
    const cut = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'headwater-demo' AND datname = current_database()`;
    for (let i = 0; i < 20; i++) {
      await pool.query(cut);
      await sleep(20);
    }
    const updated = 'SELECT max(updated_at) AS value FROM public.prices';
    const before = await value<Date>(updated);
    await sleep(3_000);
    expect((await value<Date>(updated))!.getTime()).to.be.greaterThan(before!.getTime());
    const administrator = await connectPostgres((await testServers()).databaseUrl, 'test', log);
    try {
      await administrator.query(`ALTER DATABASE "${database.name}" ALLOW_CONNECTIONS false`);
      await pool.query(cut);
      await sleep(500);
      const from = performance.now();
      await demo.stop();
      expect(performance.now() - from).to.be.lessThan(2_000);
    } finally {
      await administrator.query(`ALTER DATABASE "${database.name}" ALLOW_CONNECTIONS true`);
      await administrator.end();
    }
  });
});
