import { expect } from 'chai';
import { migrate } from '../../deploy/migrate.ts';
import { createPool, type PgPool } from '../../pipeline/clients/postgres.ts';
import { PostgresStateStore } from '../../pipeline/runner/postgres-state-store.ts';
import { startRunner } from '../../pipeline/runner/runner.ts';
import type { Role } from '../../pipeline/runtime/lifecycle.ts';
import { silentLogger } from '../../pipeline/runtime/logging.ts';
import { FaultyLog } from '../support/faulty-log.ts';
import { roleContext, until } from '../support/role-context.ts';
import { rowEvent } from '../support/row-events.ts';
import { freshDatabase, type FreshDatabase } from '../support/servers.ts';
import { tcpProxy, type TcpProxy } from '../support/tcp-proxy.ts';

const name = 'ledger';
const pages = 3;

describe('runner and a PostgreSQL that goes away', function () {
  this.timeout(60_000);
  let database: FreshDatabase;
  let direct: PgPool;
  let proxy: TcpProxy;
  let through: PgPool;
  let store: PostgresStateStore<number[]>;
  let log: FaultyLog;
  const roles: Role[] = [];

  before(async () => {
    database = await freshDatabase();
    await migrate(database.url, { demo: false, log: silentLogger() });
    direct = createPool(database.url, 'test', silentLogger(), 2);
    await direct.query('CREATE TABLE ledger (n int GENERATED ALWAYS AS IDENTITY, seq bigint)');
    const url = new URL(database.url);
    proxy = await tcpProxy(Number(url.port));
    url.port = String(proxy.port);
    url.hostname = '127.0.0.1';
    url.searchParams.delete('host');
    through = createPool(url.toString(), 'through', silentLogger(), 4, { query_timeout: 400, connectionTimeoutMillis: 400 });
  });
  beforeEach(async () => {
    await direct.query('TRUNCATE ledger, headwater.processor_offsets');
    log = new FaultyLog();
    store = new PostgresStateStore<number[]>(through, name, {
      isEmpty: (seqs) => seqs.length === 0,
      write: async (client, seqs) => void (await client.query('INSERT INTO ledger (seq) SELECT unnest($1::bigint[])', [seqs])),
    });
  });
  afterEach(async () => {
    proxy.restore();
    await Promise.all(roles.splice(0).map((role) => role.stop()));
  });
  after(async () => {
    await through?.end();
    await direct?.end();
    await proxy?.close();
    await database?.drop();
  });

  let count = 0;
  const add = (events: number): void =>
    log.add(...Array.from({ length: events }, () => rowEvent(++count, 'insert', { key: { id: count }, after: { id: count } })));
  const seqNow = async (): Promise<number> =>
    Number((await direct.query<{ seq: string | null }>('SELECT seq FROM headwater.processor_offsets')).rows[0]?.seq ?? -1);
  const written = async (): Promise<number[]> =>
    (await direct.query<{ seq: string }>('SELECT seq FROM ledger ORDER BY n')).rows.map(({ seq }) => Number(seq));
  const upTo = (last: number): number[] => Array.from({ length: last }, (_, i) => i + 1);

  /** `loaded`: what is in the ledger when the runner asks for its state. */
  function start(loaded: number[] = []): void {
    const context = roleContext();
    roles.push(
      startRunner(context, {
        eventLog: log,
        processor: { name, begin: () => [], apply: ({ seq }, effects) => void effects.push(seq) },
        store,
        deadLetters: { publish: () => Promise.reject(new Error('none expected')) },
        load: async () => {
          const { rows } = await through.query<{ count: number }>('SELECT count(*)::float8 AS count FROM ledger');
          loaded.push(rows[0]!.count);
        },
        leaseMs: 1_000,
        limits: { events: 50 },
      }),
    );
  }

  it('makes every effect exactly once over cut, stalled and terminated connections', async () => {
    count = 0;
    start();
    const faults = {
      cut: () => proxy.cut(),
      stall: () => proxy.stall(),
      terminate: () => direct.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'through'`),
    };
    for (const fault of ['cut', 'stall', 'terminate', 'cut', 'terminate', 'stall'] as const) {
      add(2_000);
      await until(async () => (await seqNow()) > count - 1_900);
      await faults[fault]();
      add(500);
      await new Promise((resolve) => setTimeout(resolve, 100 * Math.random()));
      proxy.restore();
      await until(async () => (await seqNow()) === count, 20_000, `sequence ${count}`);
    }
    expect(await written()).to.deep.equal(upTo(count));
  });

  it('takes a commit whose answer was lost for its own', async () => {
    count = 0;
    let lose = true;
    const commit = store.commit.bind(store);
    store.commit = async (...batch) => {
      const outcome = await commit(...batch);
      if (!lose || batch[0].length === 0) return outcome;
      lose = false;
      throw new Error('the connection broke');
    };
    const loaded: number[] = [];
    start(loaded);
    add(120);
    await until(async () => (await seqNow()) === 120);
    expect(await written()).to.deep.equal(upTo(120));
    expect(loaded, 'it did not have to begin again').to.deep.equal([0]);
  });

  it('loads what is stored before the first event, and again when the offset has moved while it loaded', async () => {
    count = 0;
    add(pages * 50);
    const loaded: number[] = [];
    start(loaded);
    await until(async () => (await seqNow()) === pages * 50);
    await Promise.all(roles.splice(0).map((role) => role.stop()));
    const loadedAgain: number[] = [];
    const offset = store.offset.bind(store);
    let asked = 0;
    store.offset = async () => {
      const found = await offset();
      // Right behind it, somebody else commits.
      if (asked++ === 0) {
        await direct.query('UPDATE headwater.processor_offsets SET seq = seq + 50');
        await direct.query('INSERT INTO ledger (seq) SELECT generate_series(151, 200)');
      }
      return found;
    };
    add(100);
    start(loadedAgain);
    await until(async () => (await seqNow()) === 250);
    expect(loaded).to.deep.equal([0]);
    expect(loadedAgain).to.deep.equal([200, 200]);
    expect(await written()).to.deep.equal(upTo(250));
  });

  it('leaves the state alone when a batch cannot be written, and tries until it can', async () => {
    count = 0;
    await direct.query('ALTER TABLE ledger ADD CONSTRAINT small CHECK (seq < 60)');
    start();
    add(100);
    await until(async () => (await seqNow()) === 50);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(await written()).to.deep.equal(upTo(50));
    await direct.query('ALTER TABLE ledger DROP CONSTRAINT small');
    await until(async () => (await seqNow()) === 100);
    expect(await written()).to.deep.equal(upTo(100));
  });
});
