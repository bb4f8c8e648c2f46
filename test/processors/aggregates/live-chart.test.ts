import { expect } from 'chai';
import { startRoles, type RunningRoles } from '../../../cli/roles/start-roles.ts';
import { migrate } from '../../../deploy/migrate.ts';
import { createPool, type PgPool } from '../../../pipeline/clients/postgres.ts';
import { createKey } from '../../../pipeline/keys/postgres-keys.ts';
import { Health } from '../../../pipeline/runtime/health.ts';
import { silentLogger } from '../../../pipeline/runtime/logging.ts';
import { createRegistry } from '../../../pipeline/runtime/metrics.ts';
import { defiCatalog } from '../../../schemas/catalog-file.ts';
import { TestClient } from '../../gateway/support/harness.ts';
import { captureFixture, type CaptureFixture } from '../../pipeline/capture/support/fixture.ts';
import { redisDatabase, type RedisDatabase } from '../../support/redis-database.ts';
import { until } from '../../support/role-context.ts';

describe('a live chart, from the database to the socket', function () {
  this.timeout(120_000);
  const log = silentLogger();
  let fixture: CaptureFixture;
  let redis: RedisDatabase;
  let pool: PgPool;
  let roles: RunningRoles;
  let key: string;

  before(async () => {
    fixture = await captureFixture();
    redis = await redisDatabase();
    await migrate(fixture.databaseUrl, { demo: true, log });
    pool = createPool(fixture.databaseUrl, 'test', log, 2);
    ({ key } = await createKey(pool, { name: 'chart', owner: 'chart', scopes: ['read:aggregates:liquidations'], limits: {} }));
    const { operator } = fixture.natsUrls;
    roles = await startRoles(['capture', 'aggregates', 'gateway'], {
      config: fixture.config({ HEADWATER_PORT: '0', HEADWATER_TICK: '100ms', REDIS_URL: redis.url, NATS_URL: operator }),
      natsUrls: { capture: operator, processor: operator, gateway: operator },
      catalog: defiCatalog(),
      log,
      health: new Health(),
      metrics: createRegistry(),
      signal: new AbortController().signal,
      snapshot: true,
    });
    await Promise.all([roles.gateway!.ready, roles.capture!.streaming]);
  });
  after(async () => {
    await roles?.stop();
    await pool?.end();
    await redis?.close();
    await fixture?.close();
  });

  const insert = (usd: string): Promise<unknown> =>
    pool.query(
      `INSERT INTO public.liquidations (protocol_slug, chain, user_address, collateral_token, debt_token, amount_usd, liquidated_at)
       VALUES ('aave', 'base', 'u', 'c', 'd', ${usd}, '2026-11-22T12:00:05Z')`,
    );

  it('is drawn by one request, and kept by one subscription from its sequence', async () => {
    await insert('1000.25');
    await insert('2000.50');
    interface Series {
      readonly seq: number;
      readonly items?: readonly Readonly<Record<string, unknown>>[];
    }
    const series = async (): Promise<Series> =>
      (await (
        await fetch(`${roles.gateway!.url}/v2/aggregates/liquidations?protocol_slug=aave&chain=base&window=1m`, {
          headers: { authorization: `Bearer ${key}` },
        })
      ).json()) as Series;
    await until(async () => (await series()).items?.[0]?.['count'] === 2, 30_000);
    const { items, seq } = await series();
    expect(items![0]).to.include({ start: '2026-11-22T12:00:00Z', count: 2, sum: '3000.75', max: '2000.50' });
    await insert('4000');
    await pool.query(`DELETE FROM public.liquidations WHERE amount_usd = 2000.50`);
    const client = await TestClient.open(roles.gateway!, key);
    await client.subscribe({ sub: 'c', channel: 'aggregates:liquidations', filter: { protocolIds: ['aave'] }, from: { after: seq } });
    await client.next(
      ({ type, event }) =>
        type === 'event' && (event as { windows: Record<string, { sum: string }[]> }).windows['1m']![0]!.sum === '5000.25',
      20_000,
    );
    client.ws.terminate();
  });
});
