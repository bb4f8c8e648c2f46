import { expect } from 'chai';
import { migrate } from '../../../deploy/migrate.ts';
import { createPool, type PgPool } from '../../../pipeline/clients/postgres.ts';
import type { Role } from '../../../pipeline/runtime/lifecycle.ts';
import { silentLogger } from '../../../pipeline/runtime/logging.ts';
import { alerts } from '../../../processors/alerts.ts';
import { defaultCatalog } from '../../../schemas/catalog.ts';
import { redriveWorld, type RedriveWorld } from '../../support/redrive-world.ts';
import { roleContext, until } from '../../support/role-context.ts';
import { freshDatabase, type FreshDatabase } from '../../support/servers.ts';
import { logEvent, ruleEvent, type TestEvent } from './engine/support/log.ts';

const id = (n: number): string => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`;
const row = (at: number, key: number, a: string, c: string): TestEvent => ({
  kind: 'row',
  at,
  op: 'insert',
  key: { id: key },
  after: { id: key, a, c },
});

describe('redriving in alerts', function () {
  this.timeout(60_000);
  let database: FreshDatabase;
  let pool: PgPool;
  let world: RedriveWorld;
  let role: Role | undefined;
  beforeEach(async () => {
    database = await freshDatabase();
    await migrate(database.url, { demo: false, log: silentLogger() });
    pool = createPool(database.url, 'test', silentLogger(), 4);
    world = await redriveWorld();
  });
  afterEach(async () => {
    await role?.stop();
    await world.close();
    await pool.end();
    await database.drop();
  });

  it('fires as of now what was missed, once; and nothing of a row or a group that has gone on', async () => {
    const { log } = world;
    const add = (...events: TestEvent[]): void => log.add(...events.map((event) => logEvent(event, log.head + 1)));
    const each = (...events: TestEvent[]): void => events.forEach((event) => add(event));
    const tick = (): void => add({ kind: 'tick', at: log.head });
    const start = async (): Promise<void> => {
      const connections = { catalog: defaultCatalog(), log: () => Promise.resolve({ eventLog: log, deadLetters: world.deadLetters }) };
      role = await alerts.start(roleContext(), {
        ...connections,
        postgres: () => pool,
        redis: () => Promise.reject(new Error('not needed')),
      });
    };
    each(
      { kind: 'schema', at: 0, columns: { id: 'integer', a: 'numeric', c: 'text' } },
      ruleEvent(0, 'insert', { id: id(1) }),
      ruleEvent(0, 'insert', { id: id(2), group_by: ['c'] }),
      row(4, 1, '80', 'x'),
      row(5, 2, '80', 'y'),
      row(6, 3, '80', 'z'),
      row(7, 2, '10', 'w'),
      row(8, 9, '10', 'z'),
    );
    for (const seq of [4, 5, 6]) log.garbled.add(seq);
    await start();
    await world.buried('alerts');
    const history = async (): Promise<string[]> => {
      const { rows } = await pool.query<{ text: string }>(
        `SELECT right(rule_id::text, 1) || ' ' || entity::text || ' ' || state || ' ' || (fired_seq > 8)::text AS text FROM headwater.alert_history ORDER BY 1`,
      );
      return rows.map(({ text }) => text);
    };
    await until(async () => (await pool.query('SELECT FROM headwater.processor_offsets WHERE seq = 8')).rowCount === 1);
    expect(await history()).to.deep.equal([]);
    // The row 2 is another one since; the group z has had a newer event.
    expect(await world.redrive('alerts', tick)).to.deep.equal(['4 applied', '5 superseded', '6 superseded']);
    const fired = ['1 {"id": 1} firing true', '2 {"c": "x"} firing true'];
    expect(await history()).to.deep.equal(fired);
    expect((await pool.query<{ holes: string[] }>('SELECT holes FROM headwater.processor_offsets')).rows[0]!.holes).to.deep.equal([]);

    // What it knows survives the process, and goes on from there.
    await role!.stop();
    await start();
    add(row(log.head, 1, '10', 'x'));
    await until(async () => (await history()).every((text) => text.includes('resolved')), 10_000, 'the end of both');
  });
});
