import { expect } from 'chai';
import { once } from 'node:events';
import { migrate } from '../../deploy/migrate.ts';
import { connectNats, type NatsConnection } from '../../pipeline/clients/nats.ts';
import { createPool, type PgPool } from '../../pipeline/clients/postgres.ts';
import type { NewEvent } from '../../pipeline/log/event-log.ts';
import type { Role } from '../../pipeline/runtime/lifecycle.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { alerts } from '../../processors/alerts.ts';
import { defaultCatalog } from '../../schemas/catalog.ts';
import { startCli } from '../cli/support/run-cli.ts';
import type { FreshLog } from '../pipeline/log/support/fresh-log.ts';
import { filledLog } from '../pipeline/replay/support/replay-log.ts';
import { fatalRoad, type FatalRoad } from '../support/fatal-road.ts';
import { roleContext, until } from '../support/role-context.ts';
import { rowEvent } from '../support/row-events.ts';
import { freshDatabase, testServers, type FreshDatabase } from '../support/servers.ts';
import { alertsPhases } from './support/alerts-phases.ts';
import { phases, type Phase } from './support/walk.ts';

const count = 3_000;
/** A command that is told to end may take so long; what does not answer is given up before. */
const endsMs = 12_000;

const rule = {
  id: '00000000-0000-4000-8000-000000000001',
  user_id: 'ann',
  revision: 1,
  name: 'dear',
  table_name: 'public.prices',
  match: {},
  group_by: null,
  condition: { field: 'price', op: 'gt', value: '10' },
  clear_condition: null,
  for_seconds: 0,
  keep_firing_for_seconds: 0,
  cooldown_seconds: 0,
  severity: 'info',
  enabled: true,
};

function nthEvent(n: number): NewEvent {
  if (n === 1) return rowEvent(n, 'insert', { schema: 'headwater', table: 'alert_rules', key: { id: rule.id }, after: rule });
  const id = `t${n % 100}`;
  return rowEvent(n, 'update', { key: { id }, before: { id, price: '0' }, after: { id, price: n % 3 === 0 ? '11' : '5' } });
}

describe('headwater rebuild alerts, told to end', function () {
  this.timeout(240_000);
  const stop = new AbortController();
  let connection: NatsConnection;
  let fresh: FreshLog;
  let database: FreshDatabase;
  let pool: PgPool;
  let road: FatalRoad;
  let live: Role;
  let env: Record<string, string>;

  before(async () => {
    const { natsUrl, redisUrl } = await testServers();
    connection = await connectNats(natsUrl, 'test', silentLogger());
    fresh = await filledLog(connection, count, nthEvent);
    database = await freshDatabase();
    await migrate(database.url, { demo: false, log: silentLogger() });
    pool = createPool(database.url, 'test', silentLogger(), 6);
    road = await fatalRoad(database.url);
    env = {
      DATABASE_URL: road.url,
      NATS_URL: natsUrl,
      REDIS_URL: redisUrl,
      HEADWATER_STREAM: fresh.subject,
      HEADWATER_SUBJECT: fresh.subject,
    };
    live = await alerts.start(roleContext(stop.signal), {
      catalog: defaultCatalog(),
      log: () =>
        Promise.resolve({
          eventLog: fresh.log,
          deadLetters: { publish: () => Promise.reject(new Error('no event of this test is poison')) },
        }),
      redis: () => Promise.reject(new Error('alerts need no Redis')),
      postgres: () => pool,
    });
    await until(async () => (await offsets())['alerts'] === count, 30_000, 'the alerts');
  });
  after(async () => {
    stop.abort();
    await live?.stop();
    await road?.close();
    await pool?.end();
    fresh?.log.close();
    await fresh?.remove();
    await connection?.close();
    await database?.drop();
  });

  async function offsets(): Promise<Record<string, number>> {
    const { rows } = await pool.query<{ processor: string; seq: string | null }>('SELECT processor, seq FROM headwater.processor_offsets');
    return Object.fromEntries(rows.map(({ processor, seq }) => [processor, Number(seq ?? 0)]));
  }
  const state = async (): Promise<string | undefined> =>
    (await pool.query<{ state: string }>('SELECT state FROM headwater.processor_rebuilds')).rows[0]?.state;

  /** Runs a command; told to end at a phase, if any. How long it took to do so, in ms. */
  async function run(order: string, phase?: Phase, answered = true): Promise<{ code: unknown; ms: number; said: string }> {
    let [toldAt, said] = [NaN, ''];
    const child = startCli(['rebuild', 'alerts', ...(order === '' ? [] : [order])], env);
    const tell = (): 'passes' | 'lost' => {
      toldAt = performance.now();
      child.kill('SIGTERM');
      return answered ? 'passes' : 'lost';
    };
    road.at(phase ? 1 : Infinity, tell, phase && alertsPhases[phase].of);
    for (const stream of [child.stdout!, child.stderr!]) stream.setEncoding('utf8').on('data', (text: string) => (said += text));
    const timer = setTimeout(() => child.kill('SIGKILL'), phase ? 60_000 : 120_000);
    const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
    clearTimeout(timer);
    return { code: code ?? signal, ms: performance.now() - toldAt, said };
  }

  it('ends within some seconds in each phase, though the database does not answer, and can be gone on with', async () => {
    for (const phase of phases) {
      // A flip is the same to it: a transaction.
      const answered = phase === 'drop';
      const { code, ms, said } = await run(answered ? '--drop' : '', phase, answered);
      expect(ms, `${phase}: ${said}`).to.be.below(endsMs);
      // What could no longer be held up is done.
      if (!(answered && code === 0)) expect(code, `${phase}: ${said}`).to.equal(143);
      if (!answered) expect(said, phase).to.include('alerts: interrupted. ');
      if (phase !== 'flip') continue;
      expect(await state()).to.equal('filling');
      const { code: done, said: why } = await run('');
      expect(done, why).to.equal(0);
    }
    if ((await state()) !== undefined) {
      const { code, said } = await run('--drop');
      expect(code, said).to.equal(0);
    }
    expect(Object.keys(await offsets())).to.deep.equal(['alerts']);
  });
});
