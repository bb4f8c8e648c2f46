import { expect } from 'chai';
import fastify, { type FastifyInstance } from 'fastify';
import { closeRedis, openRedis } from '../../../pipeline/clients/redis.ts';
import type { DatabaseRows } from '../../../pipeline/runner/database-rows.ts';
import { RedisStateStore } from '../../../pipeline/runner/redis-state-store.ts';
import { usage } from '../../../pipeline/runtime/errors.ts';
import { silentLogger } from '../../../pipeline/runtime/logging.ts';
import { createRegistry } from '../../../pipeline/runtime/metrics.ts';
import { cacheProcessor } from '../../../processors/cache/fold.ts';
import { redisCache } from '../../../processors/cache/redis-cache.ts';
import { RedisRows } from '../../../processors/cache/redis-rows.ts';
import { rowsRoutes } from '../../../processors/cache/rows.ts';
import { defaultCatalog, unnamedEntry, type Catalog } from '../../../schemas/catalog.ts';
import { redisNamespace, type RedisNamespace } from '../../support/redis-namespace.ts';
import { rowEvent } from '../../support/row-events.ts';

const catalog: Catalog = {
  ...defaultCatalog(),
  tables: new Map([['public.prices', { ...unnamedEntry, channel: 'prices' }]]),
  exclude: ['audit.*'],
};

/** Rows by `<table>/<values>`; it can be slow, or away. */
class TableOfRows implements DatabaseRows {
  readonly rows = new Map<string, string>();
  reads = 0;
  gate: Promise<void> = Promise.resolve();
  away = false;

  async readRow(table: string, key: readonly string[]): Promise<string | undefined> {
    this.reads++;
    await this.gate;
    if (this.away) throw new Error('connection refused');
    if (key.length !== 1) throw usage('bad_key', `the primary key of ${table} is one column, but ${key.length} values are given`);
    return this.rows.get(`${table}/${key.join('|')}`);
  }
}

describe('GET /v2/rows', () => {
  let redis: RedisNamespace;
  let database: TableOfRows;
  let app: FastifyInstance;
  let scopes: readonly string[];
  const metrics = createRegistry();

  before(async () => {
    redis = await redisNamespace();
  });
  after(async () => {
    await app.close();
    await redis.close();
  });
  beforeEach(async () => {
    await redis.empty();
    database = new TableOfRows();
    scopes = ['read'];
    app = server(new RedisRows(redis.client, catalog, redis.keys));
  });

  function server(cache: RedisRows): FastifyInstance {
    const created = fastify();
    created.decorateRequest('principal');
    created.addHook('onRequest', (request, _reply, done) => {
      request.principal = { keyId: 'k', owner: 'alice', scopes, expiresAt: undefined };
      done();
    });
    void created.register((scope, _options, done) => {
      void rowsRoutes({ catalog, cache, database, metrics, log: silentLogger() })(scope);
      done();
    });
    return created;
  }

  async function fold(...events: readonly ReturnType<typeof rowEvent>[]): Promise<void> {
    const processor = cacheProcessor(catalog);
    const store = new RedisStateStore(redis.client, 'cache', redis.keys, redisCache);
    const effects = processor.begin();
    events.forEach((event, i) => processor.apply({ ...event, seq: i + 1 }, effects));
    await store.commit(processor.begin(), undefined, { seq: 0, epoch: 'e' });
    await store.commit(effects, { seq: 0, epoch: 'e' }, { seq: events.length, epoch: 'e' });
  }

  async function get(path: string): Promise<{
    status: number;
    text: string;
    body: { row?: unknown; seq?: number; asOf?: number; source?: string; error?: { code: string; field?: string } };
  }> {
    const answer = await app.inject({ method: 'GET', url: `/v2/rows/${path}` });
    expect(answer.headers['content-type']).to.match(/^application\/json/);
    return { status: answer.statusCode, text: answer.body, body: answer.json() };
  }

  it('answers from the cache, with the row’s bytes as they are in the log', async () => {
    const after = '{"id":1,"big":12345678901234567890123,"text":"ü \\u0041 \\"","j":{"a": 1e400,  "b":[ ]}}';
    const event = `{"v":1,"id":"0000000000000001.00000001","type":"row","op":"insert","table":"public.prices","key":{"id":1},"after":${after},"tx":{"xid":1,"idx":0},"at":"2026-11-22T12:00:00Z"}`;
    await fold(
      { subject: 'ev.public.prices.insert', data: Buffer.from(event) },
      rowEvent(2, 'insert', { key: { id: 2 }, after: { id: 2 } }),
    );
    const { status, text } = await get('public.prices/1');
    expect(status).to.equal(200);
    expect(text).to.equal(`{"row":${after},"seq":1,"asOf":2,"source":"cache"}`);
    expect(database.reads).to.equal(0);
  });

  it('finds keys of several columns and of any text', async () => {
    await fold(
      rowEvent(1, 'insert', { key: { chain: 'base', address: 'a/b:c %é' }, after: { n: 1 } }),
      rowEvent(2, 'insert', { key: { id: '' }, after: { n: 2 } }),
      rowEvent(3, 'insert', { key: { id: 'x'.repeat(700) }, after: { n: 3 } }),
      rowEvent(4, 'insert', { table: 'odd: 100%.x', key: { id: 1 }, after: { n: 4 } }),
    );
    expect((await get(`public.prices/base:${encodeURIComponent('a/b:c %é')}`)).body.row).to.deep.equal({ n: 1 });
    expect((await get('public.prices/')).body.row).to.deep.equal({ n: 2 });
    expect((await get(`public.prices/${'x'.repeat(700)}`)).body.row).to.deep.equal({ n: 3 });
    expect((await get(`${encodeURIComponent('public.odd: 100%.x')}/1?x=1`)).body.row).to.deep.equal({ n: 4 });
  });

  it('asks the database about rows the cache does not know, and does not write the answer back', async () => {
    await fold(rowEvent(1, 'insert', { key: { id: 1 }, after: { id: 1 } }));
    database.rows.set('public.prices/7', '{"id":7,"n":1.10}');
    for (let i = 0; i < 2; i++)
      expect((await get('public.prices/7')).text).to.equal('{"row":{"id":7,"n":1.10},"asOf":1,"source":"database"}');
    expect(database.reads).to.equal(2);
    expect((await get('public.prices/8')).status).to.equal(404);
  });

  it('says at once that a deleted row, or one of before a truncate, is not there', async () => {
    await fold(
      rowEvent(1, 'insert', { key: { id: 1 }, after: { id: 1 } }),
      rowEvent(2, 'delete', { key: { id: 1 } }),
      rowEvent(3, 'insert', { table: 'tvl', key: { id: 1 }, after: { id: 1 } }),
    );
    const { status, body } = await get('public.prices/1');
    expect([status, body.error?.code]).to.deep.equal([404, 'not_found']);
    expect(database.reads).to.equal(0);
  });

  it('asks the database when the event lacks columns of the row', async () => {
    await fold(
      rowEvent(1, 'update', { key: { id: 1 }, after: { id: 1 }, unchanged: ['large'] }),
      rowEvent(2, 'insert', { key: { id: 2 }, after: { id: 2 }, omitted: ['huge'] }),
      rowEvent(3, 'insert', { key: { id: 3 }, after: { id: 3, unchanged: ['x'], omitted: ['"unchanged":["y"]'] } }),
    );
    database.rows.set('public.prices/1', '{"id":1,"large":"…"}').set('public.prices/2', '{"id":2,"huge":"…"}');
    expect((await get('public.prices/1')).body).to.deep.include({ source: 'database', row: { id: 1, large: '…' } });
    expect((await get('public.prices/2')).body).to.deep.include({ source: 'database', row: { id: 2, huge: '…' } });
    expect((await get('public.prices/3')).body).to.deep.include({ source: 'cache', seq: 3 });
  });

  it('asks the database once for many who ask at the same time', async () => {
    database.rows.set('public.prices/7', '{"id":7}');
    let open = (): void => undefined;
    database.gate = new Promise((resolve) => (open = resolve));
    const asking = Array.from({ length: 20 }, () => get('public.prices/7'));
    await new Promise((resolve) => setTimeout(resolve, 100));
    open();
    for (const { status } of await Promise.all(asking)) expect(status).to.equal(200);
    expect(database.reads).to.equal(1);
  });

  it('serves from the database while Redis is down, and says 503 when both are', async () => {
    const gone = openRedis('redis://127.0.0.1:1', silentLogger());
    app = server(new RedisRows(gone, catalog, redis.keys));
    database.rows.set('public.prices/7', '{"id":7}');
    expect((await get('public.prices/7')).text).to.equal('{"row":{"id":7},"asOf":0,"source":"database"}');
    database.away = true;
    const { status, body } = await get('public.prices/7');
    expect([status, body.error?.code]).to.deep.equal([503, 'unavailable']);
    closeRedis(gone);
  });

  it('lets only those in who may read the channel', async () => {
    await fold(
      rowEvent(1, 'insert', { key: { id: 1 }, after: { id: 1 } }),
      rowEvent(2, 'insert', { table: 'tvl', key: { id: 1 }, after: { id: 1 } }),
    );
    scopes = ['read:prices'];
    expect((await get('public.prices/1')).status).to.equal(200);
    const { status, body } = await get('public.tvl/1');
    expect([status, body.error?.code]).to.deep.equal([403, 'forbidden']);
  });

  it('knows no tables of the system, of Headwater’s own, or that are not captured', async () => {
    for (const table of ['pg_catalog.pg_authid', 'information_schema.tables', 'headwater.api_keys', 'headwater.users', 'audit.log']) {
      const { status, body } = await get(`${table}/1`);
      expect([table, status, body.error?.code]).to.deep.equal([table, 404, 'not_found']);
    }
    expect(database.reads).to.equal(0);
  });

  it('shows an alert to its owner and to administrators only', async () => {
    const alert = (n: number, user: string): ReturnType<typeof rowEvent> =>
      rowEvent(n, 'insert', { schema: 'headwater', table: 'alert_history', key: { id: n }, after: { id: n, user_id: user } });
    await fold(alert(1, 'alice'), alert(2, 'bob'));
    expect((await get('headwater.alert_history/1')).status).to.equal(200);
    expect((await get('headwater.alert_history/2')).status).to.equal(404);
    scopes = ['admin'];
    expect((await get('headwater.alert_history/2')).status).to.equal(200);
  });

  for (const path of ['public.prices', 'prices/1', 'public.prices/a%00b', 'public.prices/a/b', '', '/1']) {
    it(`refuses the path ${JSON.stringify(path)} with 400`, async () => {
      const { status, body } = await get(path);
      expect([status, body.error?.code]).to.deep.equal([400, 'bad_request']);
    });
  }

  for (const path of ['public.prices/%ZZ', '%/1', 'public.prices/%C0%80']) {
    // Fastify itself does, before any route: how that answer looks is the gateway's matter.
    it(`refuses the path ${JSON.stringify(path)}, which is no URL, with 400`, async () => {
      expect((await get(path)).status).to.equal(400);
    });
  }

  it('refuses a key that cannot be one of the table', async () => {
    const { status, body } = await get('public.prices/ethereum:0xc02a');
    expect([status, body.error?.code, body.error?.field]).to.deep.equal([400, 'bad_request', 'key']);
  });

  it('counts hits and misses', async () => {
    const text = await metrics.metrics();
    for (const result of ['hit', 'miss', 'partial', 'unavailable'])
      expect(text).to.match(new RegExp(`headwater_rows_reads_total\\{result="${result}"\\} [1-9]`));
  });
});
