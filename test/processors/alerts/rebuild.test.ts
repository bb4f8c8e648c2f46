import { expect } from 'chai';
import { migrate } from '../../../deploy/migrate.ts';
import { createPool, type PgPool } from '../../../pipeline/clients/postgres.ts';
import type { NewEvent } from '../../../pipeline/log/event-log.ts';
import type { Rebuildable, Steering } from '../../../pipeline/runner/rebuild/model.ts';
import type { HeadwaterError } from '../../../pipeline/runtime/errors.ts';
import type { RoleContext } from '../../../pipeline/runtime/lifecycle.ts';
import type { Role } from '../../../pipeline/runtime/lifecycle.ts';
import { silentLogger } from '../../../pipeline/runtime/logging.ts';
import { alerts } from '../../../processors/alerts.ts';
import { alertsBeside } from '../../../processors/alerts/rebuild.ts';
import type { ProcessorConnections } from '../../../processors/processor-factory.ts';
import { defaultCatalog } from '../../../schemas/catalog.ts';
import { MemoryLog } from '../../support/memory-log.ts';
import { roleContext, until } from '../../support/role-context.ts';
import { rowEvent, tickEvent } from '../../support/row-events.ts';
import { freshDatabase, type FreshDatabase } from '../../support/servers.ts';
import { unsteered } from '../../support/unsteered.ts';

const rule = (id: number): Record<string, unknown> => ({
  id: `00000000-0000-4000-8000-${String(id).padStart(12, '0')}`,
  user_id: 'ann',
  revision: 1,
  name: `rule ${id}`,
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
});

describe('rebuild of alerts', () => {
  let database: FreshDatabase;
  let pool: PgPool;
  let log: MemoryLog;
  let stop: AbortController;
  let context: RoleContext;
  let connections: ProcessorConnections;
  let live: Role | undefined;
  before(async () => {
    database = await freshDatabase();
    await migrate(database.url, { demo: false, log: silentLogger() });
    pool = createPool(database.url, 'test', silentLogger(), 12);
  });
  after(async () => {
    await pool.end();
    await database.drop();
  });
  beforeEach(async () => {
    for (const table of ['processor_offsets', 'processor_rebuilds', 'alert_history', 'alert_outbox'])
      await pool.query(`TRUNCATE headwater.${table} CASCADE`);
    for (const table of ['tables', 'rules', 'episodes', 'entities', 'samples', 'journal'])
      await pool.query(`TRUNCATE headwater.alert_state_${table}`);
    log = new MemoryLog();
    stop = new AbortController();
    context = roleContext(stop.signal);
    const deadLetters = { publish: () => Promise.reject(new Error('no event of this test is poison')) };
    connections = {
      catalog: defaultCatalog(),
      log: () => Promise.resolve({ eventLog: log, deadLetters }),
      redis: () => Promise.reject(new Error('alerts need no Redis')),
      postgres: () => pool,
    };
  });
  afterEach(async () => {
    stop.abort();
    await live?.stop();
  });

  const append = (...events: NewEvent[]): Promise<number> => log.append(events, log.head);
  const price = (id: string, value: string): Promise<number> =>
    append(rowEvent(log.head + 1, 'update', { key: { id }, after: { id, price: value }, before: { id, price: '0' } }));
  const liveAt = async (seq: number): Promise<boolean> => {
    const { rows } = await pool.query<{ seq: string }>(`SELECT seq FROM headwater.processor_offsets WHERE processor = 'alerts'`);
    return Number(rows[0]?.seq) === seq;
  };
  const count = async (what: string): Promise<number> =>
    Number((await pool.query<{ count: string }>(`SELECT count(*) FROM headwater.${what}`)).rows[0]!.count);
  const rebuildOf = async (): Promise<Rebuildable> => (await alerts.rebuild!(roleContext(stop.signal), connections))[0]!;

  async function ticking<T>(work: Promise<T>): Promise<T> {
    let done = false;
    const ended = work.finally(() => (done = true));
    void ended.catch(() => undefined);
    while (!done) {
      await append(tickEvent(log.head + 1));
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return ended;
  }

  it('makes the state anew without history or outbox, and nothing that was told is told again', async () => {
    const row = rule(1);
    await append(rowEvent(1, 'insert', { schema: 'headwater', table: 'alert_rules', key: { id: row['id'] }, after: row }));
    for (let n = 0; n < 200; n++) await price(`t${n % 20}`, n % 3 === 0 ? '11' : '05');
    live = await alerts.start(context, connections);
    await until(() => liveAt(log.head));
    const [history, outbox] = [await count('alert_history'), await count('alert_outbox')];
    expect(history).to.be.greaterThan(20);
    const firing = await count(`alert_history WHERE state = 'firing'`);
    expect(firing).to.be.greaterThan(0);

    const same = await ticking((await rebuildOf()).rebuild({ flip: false }));
    expect(same.comparison).to.deep.include({ differences: 0, listed: [], moving: 0 });
    expect(same.comparison.compared).to.be.greaterThan(20);
    // A bug of before: an episode that never was, and a forgotten one.
    await pool.query(`DELETE FROM headwater.alert_state_episodes WHERE processor = 'alerts'`);
    const { comparison, flipped } = await ticking((await rebuildOf()).rebuild({ flip: true }));
    expect(flipped).to.equal(true);
    expect(comparison.differences).to.equal(firing);
    expect(comparison.listed[0]).to.include({ live: undefined });
    expect([await count('alert_history'), await count('alert_outbox')]).to.deep.equal([history, outbox]);

    // The live one goes on in the new state: what fires is resolved once, and fires anew once.
    for (let n = 0; n < 20; n++) await price(`t${n}`, '05');
    await until(() => liveAt(log.head));
    expect(await count(`alert_history WHERE state = 'firing'`)).to.equal(0);
    expect(await count('alert_outbox')).to.equal(outbox + firing);
    for (let n = 0; n < 20; n++) await price(`t${n}`, '12');
    await until(() => liveAt(log.head));
    expect([await count('alert_history'), await count('alert_outbox')]).to.deep.equal([history + 20, outbox + firing + 20]);

    expect(await (await rebuildOf()).remove('kept')).to.equal(true);
    expect(await (await rebuildOf()).status()).to.equal(undefined);
    expect(await count(`alert_state_entities WHERE processor = 'alerts'`)).to.equal(0);
    expect(await count('processor_offsets')).to.equal(1);
    // And again, to where the first one was.
    const again = await ticking((await rebuildOf()).rebuild({ flip: true }));
    expect(again.comparison.differences).to.equal(0);
    expect(await count(`processor_offsets WHERE processor = 'alerts' AND namespace = 'alerts'`)).to.equal(1);
  });

  it('does not hold the live processor up for a fold that does not come along, and not for long for one that stops', async () => {
    await append(tickEvent(1));
    live = await alerts.start(context, connections);
    await until(() => liveAt(1));
    const beside = alertsBeside(pool, 'alerts');
    const asked: (number | undefined)[] = [];
    const steering = (reaches: (withinMs: number | undefined) => boolean): Steering =>
      unsteered(stop.signal, {
        bounds: () => log.bounds(),
        reach(_seq, withinMs) {
          asked.push(withinMs);
          return Promise.resolve(reaches(withinMs));
        },
      });
    // Another holds the row: who locks it, too, would have to wait.
    const other = await pool.connect();
    try {
      await other.query(`BEGIN; SELECT FROM headwater.processor_offsets WHERE processor = 'alerts' FOR UPDATE`);
      expect(await beside.flip(steering(() => false))).to.equal('behind');
      await other.query('ROLLBACK');
    } finally {
      other.release();
    }
    expect(asked.every((withinMs) => withinMs === undefined)).to.equal(true);
    asked.length = 0;
    for (let n = 0; n < 4; n++) expect(await beside.flip(steering((withinMs) => withinMs === undefined))).to.equal('behind');
    const held = asked.filter((withinMs) => withinMs !== undefined);
    expect(held).to.have.length(4);
    expect(Math.min(...held)).to.be.at.most(300);
    expect(Math.max(...held)).to.be.at.most(1_000);
  });

  it('does not take the place of alerts that still have to be resolved by their role, which does so when it is started', async () => {
    const row = rule(3);
    const rules = rowEvent(1, 'insert', { schema: 'headwater', table: 'alert_rules', key: { id: row['id'] }, after: row });
    await append(rules);
    for (let n = 0; n < 5; n++) await price(`t${n}`, '11');
    live = await alerts.start(roleContext(stop.signal), connections);
    await until(() => liveAt(log.head));
    await live.stop();
    log.epoch = 'epoch-2';
    log.epochStart = log.head + 1;
    await append({
      ...rules,
      data: rowEvent(log.head + 1, 'insert', { schema: 'headwater', table: 'alert_rules', key: { id: row['id'] }, after: row }).data,
    });
    for (let n = 0; n < 5; n++) await price(`t${n}`, n === 0 ? '11' : '05');
    const refused = await (await rebuildOf()).rebuild({ flip: true }).catch((error: unknown) => error as HeadwaterError);
    expect(refused).to.include({ code: 'rebuild_live_stopped', reaction: 'refused' });
    expect(await count(`alert_history WHERE state = 'firing'`)).to.equal(5);

    live = await alerts.start(roleContext(stop.signal), connections);
    await until(() => liveAt(log.head));
    expect((await (await rebuildOf()).rebuild({ flip: true })).comparison).to.include({ differences: 0, moving: 0 });
    expect(await count(`alert_history WHERE state = 'firing'`)).to.equal(1);
    expect(await count(`alert_history WHERE reason = 'epoch_changed'`)).to.equal(5);
  });

  it('loses no alert of a live instance that goes on firing all the while', async () => {
    const row = rule(2);
    await append(rowEvent(1, 'insert', { schema: 'headwater', table: 'alert_rules', key: { id: row['id'] }, after: row }));
    live = await alerts.start(context, connections);
    let transitions = 0;
    let done = false;
    const load = (async () => {
      for (let n = 0; !done; n++) {
        await price(`t${n}`, '11');
        await price(`t${n}`, '05');
        transitions += 2;
        await new Promise((resolve) => setTimeout(resolve, 15));
      }
    })();
    try {
      await until(() => transitions > 150);
      for (let round = 0; round < 2; round++) {
        expect((await (await rebuildOf()).rebuild({ flip: true })).comparison.differences).to.equal(0);
        expect(await (await rebuildOf()).remove('kept')).to.equal(true);
      }
    } finally {
      done = true;
      await load;
    }
    await until(() => liveAt(log.head));
    expect(await count('alert_outbox')).to.equal(transitions);
    expect(await count('alert_history')).to.equal(transitions / 2);
    expect(await count(`alert_history WHERE state = 'firing'`)).to.equal(0);
  });
});
