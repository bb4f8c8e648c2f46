import { expect } from 'chai';
import { migrate } from '../../../../deploy/migrate.ts';
import { createPool, type PgPool } from '../../../../pipeline/clients/postgres.ts';
import { PostgresStateStore } from '../../../../pipeline/runner/postgres-state-store.ts';
import { silentLogger } from '../../../../pipeline/runtime/logging.ts';
import {
  entityKey,
  episodeKey,
  noEffects,
  sampleKey,
  streamKey,
  type AlertEffects,
  type RuleRow,
  type SavedEntity,
  type SavedEpisode,
  type SavedRule,
  type SavedSample,
  type SavedTable,
} from '../../../../processors/alerts/engine/saved.ts';
import type { Alert, Rule, Transition } from '../../../../processors/alerts/model.ts';
import { alertEffects } from '../../../../processors/alerts/store/alert-effects.ts';
import { loadState } from '../../../../processors/alerts/store/load-state.ts';
import { beginAnew, skipTo } from '../../../../processors/alerts/store/mend-state.ts';
import { freshDatabase, type FreshDatabase } from '../../../support/servers.ts';

const ruleId = (n: number): string => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`;
const alertId = (n: number): string => `00000000-0000-5000-8000-${String(n).padStart(12, '0')}`;
const micros = 1_795_348_800_123_456;
const table = 'public.quotes';

const ruleRow = (n: number, change: Partial<RuleRow> = {}): RuleRow => ({
  id: ruleId(n),
  user_id: 'ann',
  revision: 1,
  name: `rule ${n}`,
  table_name: table,
  match: {},
  group_by: null,
  condition: { field: 'price', op: 'gt', value: '10.50' },
  clear_condition: null,
  for_seconds: 0,
  keep_firing_for_seconds: 0,
  cooldown_seconds: 0,
  severity: 'info',
  enabled: true,
  ...change,
});

const savedRule = (n: number, change: Partial<RuleRow> = {}): SavedRule => ({ id: ruleId(n), seq: n, row: ruleRow(n, change) });
const episode = (rule: number, entity: string, phase: SavedEpisode['phase']): SavedEpisode => ({
  rule: ruleId(rule),
  revision: 1,
  table,
  grouping: '',
  entity,
  phase,
  since: micros,
  opener: '0000000000000001.00000001',
  ...(phase === 'firing' && { fired: { alert: alertId(rule), at: micros, seq: 7, value: '11' } }),
});
const entity = (name: string, grouping = ''): SavedEntity => ({
  table,
  grouping,
  entity: name,
  key: { id: name },
  seq: 5,
  at: micros,
  values: { price: [5, '10.500'], note: [4, 'a "quoted" \\u0000 and \u0000 text'] },
});
const sample = (seq: number, name = 'a'): SavedSample => ({
  table,
  grouping: '',
  entity: name,
  field: 'price',
  window: 60_000_000,
  seq,
  at: micros + seq,
  value: `${seq}.10`,
});
const rule: Rule = {
  id: ruleId(1),
  revision: 1,
  userId: 'ann',
  name: 'rule 1',
  table,
  match: [],
  groupBy: undefined,
  when: { field: 'price', op: 'gt', value: '10.50' },
  clear: undefined,
  forMicros: 0,
  keepFiringForMicros: 0,
  cooldownMicros: 0,
  severity: 'critical',
};
const fired = (n: number, change: Partial<Alert> = {}): Transition => ({
  rule,
  event: `{"v":1, "n":${n}, "big":1e999999, "nul":"\\u0000", "price":"1.10"}`,
  alert: {
    id: alertId(n),
    ruleId: rule.id,
    revision: 1,
    userId: 'ann',
    entity: { id: `e${n}` },
    severity: 'critical',
    state: 'firing',
    value: '11.00',
    firedAt: micros,
    firedSeq: 7,
    ...change,
  },
});
const resolved = (n: number): Transition =>
  fired(n, { state: 'resolved', resolvedAt: micros + 1_000_001, resolvedSeq: 9, reason: 'condition' });

/** What was loaded, by kind. */
class Loaded {
  clock: unknown;
  readonly tables: SavedTable[] = [];
  readonly rules: SavedRule[] = [];
  readonly entities: SavedEntity[] = [];
  readonly samples: SavedSample[] = [];
  readonly episodes: SavedEpisode[] = [];
  reset(clock: unknown): void {
    this.clock = clock;
  }
  loadTables(all: Iterable<SavedTable>): void {
    this.tables.push(...all);
  }
  loadRules(all: Iterable<SavedRule>): void {
    this.rules.push(...all);
  }
  loadEntities(all: Iterable<SavedEntity>): void {
    this.entities.push(...all);
  }
  loadSamples(all: Iterable<SavedSample>): void {
    this.samples.push(...all);
  }
  loadEpisodes(all: Iterable<SavedEpisode>): void {
    this.episodes.push(...all);
  }
}

describe('store of the alerts', () => {
  let database: FreshDatabase;
  let pool: PgPool;
  let store: PostgresStateStore<AlertEffects>;
  let seq: number;
  before(async () => {
    database = await freshDatabase();
    await migrate(database.url, { demo: false, log: silentLogger() });
    pool = createPool(database.url, 'test', silentLogger(), 3);
  });
  after(async () => {
    await pool?.end();
    await database?.drop();
  });
  beforeEach(async () => {
    const tables = ['rules', 'episodes', 'entities', 'journal', 'samples', 'tables'].map((name) => `headwater.alert_state_${name}`);
    await pool.query(
      `TRUNCATE headwater.processor_offsets, headwater.alert_history, headwater.alert_outbox, headwater.alert_rules, ${tables.join(', ')} CASCADE`,
    );
    store = new PostgresStateStore(pool, 'alerts', alertEffects());
    seq = 0;
    expect(await store.commit(noEffects(), undefined, { seq, epoch: 'e' })).to.equal('committed');
  });

  async function commit(change: Partial<AlertEffects>): Promise<void> {
    const effects = { ...noEffects(), clock: { seq: seq + 1, at: micros }, ...change };
    expect(await store.commit(effects, { seq, epoch: 'e' }, { seq: ++seq, epoch: 'e' })).to.equal('committed');
  }
  const load = async (processor = 'alerts'): Promise<Loaded> => {
    const loaded = new Loaded();
    await loadState(pool, processor, loaded);
    return loaded;
  };
  const outbox = async (): Promise<string[]> =>
    (
      await pool.query<{ name: string }>(
        `SELECT right(alert_id::text, 1) || ' ' || transition AS name FROM headwater.alert_outbox ORDER BY id`,
      )
    ).rows.map(({ name }) => name);
  const history = async (): Promise<Record<string, unknown>[]> =>
    (await pool.query<Record<string, unknown>>('SELECT * FROM headwater.alert_history ORDER BY id')).rows;

  it('gives back what was stored: every kind of record, changed, deleted and forgotten', async () => {
    await commit({
      tables: new Map([[table, { table, columns: { price: ['numeric(12,2)', 3] } }]]),
      rules: new Map([1, 2, 3].map((n) => [ruleId(n), savedRule(n)])),
      episodes: new Map([
        [episodeKey(ruleId(1), 'a:b%3A'), episode(1, 'a:b%3A', 'pending')],
        [episodeKey(ruleId(2), 'a'), episode(2, 'a', 'firing')],
      ]),
      entities: new Map(['a', 'b', 'c'].map((name) => [entityKey(streamKey(table, ''), name), entity(name)])),
      samples: new Map([1, 2, 3].map((n) => [sampleKey(entityKey(streamKey(table, ''), 'a'), 'price', 60_000_000, n), sample(n)])),
    });
    const first = await load();
    expect(first.clock).to.deep.equal({ seq: 1, at: micros });
    expect(first.tables).to.deep.equal([{ table, columns: { price: ['numeric(12,2)', 3] } }]);
    expect(first.rules).to.have.deep.members([1, 2, 3].map((n) => savedRule(n)));
    expect(first.episodes).to.have.deep.members([episode(1, 'a:b%3A', 'pending'), episode(2, 'a', 'firing')]);
    expect(first.entities).to.have.deep.members([entity('a'), entity('b'), entity('c')]);
    expect(first.samples).to.deep.equal([sample(1), sample(2), sample(3)]);

    await commit({
      rules: new Map([
        [ruleId(1), undefined],
        [ruleId(2), savedRule(2, { revision: 2, enabled: false })],
      ]),
      episodes: new Map([
        [episodeKey(ruleId(1), 'a:b%3A'), undefined],
        [episodeKey(ruleId(2), 'a'), { ...episode(2, 'a', 'firing'), falseSince: micros + 1 }],
      ]),
      entities: new Map([[entityKey(streamKey(table, ''), 'b'), undefined]]),
      samples: new Map([[sampleKey(entityKey(streamKey(table, ''), 'a'), 'price', 60_000_000, 1), undefined]]),
    });
    const second = await load();
    expect(second.rules).to.have.deep.members([savedRule(2, { revision: 2, enabled: false }), savedRule(3)]);
    expect(second.episodes).to.deep.equal([{ ...episode(2, 'a', 'firing'), falseSince: micros + 1 }]);
    expect(second.entities).to.have.deep.members([entity('a'), entity('c')]);
    expect(second.samples).to.deep.equal([sample(2), sample(3)]);

    const other = JSON.stringify([['chain'], {}]);
    await commit({ entities: new Map([[entityKey(streamKey(table, other), 'x'), entity('x', other)]]) });
    // Forgotten first, then what the same batch brings anew.
    await commit({
      forgotten: new Map([[streamKey(table, ''), { table, grouping: '' }]]),
      entities: new Map([[entityKey(streamKey(table, ''), 'new'), entity('new')]]),
    });
    const third = await load();
    expect(third.entities).to.have.deep.members([entity('x', other), entity('new')]);
    expect(third.samples).to.deep.equal([]);
  });

  it('keeps the last record of an entity, however often it was written, deleted and forgotten before', async () => {
    const kept = new Map<string, SavedEntity>();
    for (let n = 0; n < 250; n++) {
      const name = `e${n % 7}`;
      const key = entityKey(streamKey(table, ''), name);
      const record = n % 5 === 3 ? undefined : { ...entity(name), seq: n };
      const forgotten = n === 120 ? new Map([[streamKey(table, ''), { table, grouping: '' }]]) : undefined;
      if (forgotten) kept.clear();
      if (record) kept.set(name, record);
      else kept.delete(name);
      await commit({ entities: new Map([[key, record]]), ...(forgotten && { forgotten }) });
      if (![3, 60, 120, 249].includes(n)) continue;
      const { entities } = await load();
      expect(entities.toSorted((a, b) => a.entity.localeCompare(b.entity))).to.deep.equal(
        [...kept.values()].toSorted((a, b) => a.entity.localeCompare(b.entity)),
      );
    }
  });

  it('loads more than a page, and leaves a fold under another name alone', async () => {
    const names = Array.from({ length: 12_001 }, (_, i) => `e${i}`);
    await commit({ entities: new Map(names.map((name) => [entityKey(streamKey(table, ''), name), entity(name)])) });
    const shadow = new PostgresStateStore<AlertEffects>(pool, 'alerts-shadow', alertEffects());
    await shadow.commit(noEffects(), undefined, { seq: 0, epoch: 'e' });
    const rules = new Map([[ruleId(9), savedRule(9)]]);
    await shadow.commit({ ...noEffects(), rules }, { seq: 0, epoch: 'e' }, { seq: 5, epoch: 'e' });
    const loaded = await load();
    expect(loaded.entities.map((one) => one.entity)).to.have.members(names);
    expect(loaded.rules).to.deep.equal([]);
    expect((await load('alerts-shadow')).rules).to.deep.equal([savedRule(9)]);
  });

  it('writes history and outbox, in order, and tells who listens; the event stays as it was, byte for byte', async () => {
    const listener = await pool.connect();
    const heard: string[] = [];
    listener.on('notification', ({ channel }) => heard.push(channel));
    await listener.query('LISTEN headwater_outbox');
    await commit({ transitions: [fired(1), fired(2), resolved(1), fired(3)] });
    await listener.query('SELECT 1');
    listener.release(true);
    expect(heard).to.deep.equal(['headwater_outbox']);
    expect(await outbox()).to.deep.equal(['1 firing', '2 firing', '1 resolved', '3 firing']);
    const [one] = (
      await pool.query<Record<string, unknown>>(
        `SELECT state, to_char(fired_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US') AS fired, resolved_at - fired_at = '1.000001 s' AS apart,
           resolved_seq, reason, value, event::text AS event FROM headwater.alert_history WHERE id = $1`,
        [alertId(1)],
      )
    ).rows;
    expect(one).to.deep.equal({
      state: 'resolved',
      fired: '2026-11-22T12:00:00.123456',
      apart: true,
      resolved_seq: '9',
      reason: 'condition',
      value: '11.00',
      event: fired(1).event,
    });
    const { rows } = await pool.query<Record<string, unknown>>(
      'SELECT alert, rule, event::text AS event FROM headwater.alert_outbox ORDER BY id LIMIT 1',
    );
    expect(rows[0]).to.deep.include({
      rule: { name: 'rule 1', table, condition: rule.when, clear: null, severity: 'critical' },
      event: fired(1).event,
    });
    expect(rows[0]!['alert']).to.include({ id: alertId(1), fired_at: '2026-11-22T12:00:00.123456Z', fired_seq: 7, state: 'firing' });
  });

  it('tells whoever follows the history of each entity in the right order, within one batch', async () => {
    await pool.query(`
      CREATE TABLE seen (n int GENERATED ALWAYS AS IDENTITY, what text);
      CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO seen (what) VALUES (right(NEW.id::text, 1) || ' ' || NEW.state); RETURN NULL; END $$;
      CREATE TRIGGER see AFTER INSERT OR UPDATE ON headwater.alert_history FOR EACH ROW EXECUTE FUNCTION see()`);
    await commit({ transitions: [fired(1)] });
    await commit({ transitions: [resolved(1), fired(2), resolved(2), fired(3), fired(4), resolved(3)] });
    const { rows } = await pool.query<{ what: string }>('SELECT what FROM seen ORDER BY n');
    await pool.query('DROP TABLE seen; DROP FUNCTION see() CASCADE');
    const told = rows.map(({ what }) => what);
    expect(told).to.deep.equal(['1 firing', '1 resolved', '2 firing', '2 resolved', '3 firing', '4 firing', '3 resolved']);
    expect(await outbox()).to.deep.equal(told);
  });

  it('takes a value that no column can hold', async () => {
    await commit({ transitions: [fired(1, { entity: { id: 'a\u0000\\u0000' }, value: 'x\u0000' })] });
    expect((await history())[0]).to.deep.include({ entity: { id: 'a\ufffd\\u0000' }, value: 'x\ufffd' });
  });

  it('posts nothing twice: neither an alert that is there, nor the end of one that is not firing', async () => {
    await commit({ transitions: [fired(1)] });
    await commit({ transitions: [fired(1), resolved(2)] });
    await commit({ transitions: [resolved(1)] });
    await commit({ transitions: [resolved(1)] });
    expect(await outbox()).to.deep.equal(['1 firing', '1 resolved']);
    expect(await history()).to.have.length(1);
  });

  it('changes nothing at all when the comparison is lost', async () => {
    const effects = { ...noEffects(), transitions: [fired(1)], rules: new Map([[ruleId(1), savedRule(1)]]) };
    expect(await store.commit(effects, { seq: 99, epoch: 'e' }, { seq: 100, epoch: 'e' })).to.equal('lost');
    expect([await history(), await outbox(), (await load()).rules]).to.deep.equal([[], [], []]);
  });

  it('begins a new epoch without state: what fires is resolved and posted; the same alert again is not posted again', async () => {
    // The third one fired at its event alone: nothing of it goes on.
    await commit({
      transitions: [fired(1), fired(2), resolved(2), fired(3)],
      rules: new Map([[ruleId(1), savedRule(1)]]),
      // The value is one that SQL cannot take out of JSON.
      episodes: new Map([
        [episodeKey(ruleId(1), 'a'), { ...episode(1, 'a', 'firing'), fired: { alert: alertId(1), at: micros, seq: 7, value: 'x\u0000' } }],
      ]),
      entities: new Map([[entityKey(streamKey(table, ''), 'a'), entity('a')]]),
      clock: { seq: 20, at: micros + 5_000_000 },
    });
    seq = 1;
    await beginAnew({ pool, store, processor: 'alerts' });
    expect(await store.offset()).to.equal(undefined);
    const loaded = await load();
    expect([loaded.clock, loaded.rules, loaded.episodes, loaded.entities]).to.deep.equal([undefined, [], [], []]);
    expect(await outbox()).to.deep.equal(['1 firing', '2 firing', '2 resolved', '3 firing', '1 resolved']);
    expect((await history()).map(({ state, reason }) => `${String(state)} ${String(reason)}`)).to.deep.equal([
      'resolved epoch_changed',
      'resolved condition',
      'firing null',
    ]);
    await store.commit({ ...noEffects(), transitions: [fired(1)] }, undefined, { seq: 8, epoch: 'f' });
    expect((await history())[0]).to.include({ state: 'firing', reason: null });
    expect(await outbox()).to.have.length(5);
  });

  it('goes on after events that are lost, with the rules as the database has them', async () => {
    const insert = async ({ id, revision, name, condition, enabled }: RuleRow): Promise<void> =>
      void (await pool.query(
        `INSERT INTO headwater.alert_rules (id, user_id, revision, name, table_name, condition, enabled, channels)
         VALUES ($1, 'ann', $2, $3, $4, $5, $6, '[{"type":"email","to":"a@example.com"}]')`,
        [id, revision, name, table, JSON.stringify(condition), enabled],
      ));
    // 1 is as it was, 2 was edited, 3 deleted, 4 disabled, 5 is new, 6 cannot be used.
    for (const row of [ruleRow(1), ruleRow(2, { revision: 3 }), ruleRow(4, { revision: 2, enabled: false }), ruleRow(5), ruleRow(6)])
      await insert(row);
    const of = (n: number): Transition => fired(n, { ruleId: ruleId(n) });
    await commit({
      transitions: [1, 2, 3, 4].map(of),
      rules: new Map([1, 2, 3, 4].map((n) => [ruleId(n), savedRule(n)])),
      episodes: new Map([1, 2, 3, 4].map((n) => [episodeKey(ruleId(n), 'a'), episode(n, 'a', 'firing')])),
      clock: { seq: 1, at: micros + 3_000_000 },
    });
    expect(await skipTo(50, { pool, store, processor: 'alerts' }, ({ id }) => id !== ruleId(6))).to.equal(48);
    expect(await store.offset()).to.deep.equal({ seq: 49, epoch: 'e' });
    expect((await history()).map(({ state, reason }) => reason ?? state)).to.deep.equal([
      'firing',
      'rule_edited',
      'rule_deleted',
      'rule_disabled',
    ]);
    const { rules, episodes, clock } = await load();
    const summary = rules.map(({ id, seq: since, row }) => `${id.slice(-1)} ${row.revision} ${row.enabled} ${since}`).sort();
    expect(summary).to.deep.equal(['1 1 true 1', '2 3 true 49', '4 2 false 49', '5 1 true 49']);
    expect(rules.find(({ id }) => id === ruleId(5))!.row).to.deep.equal(ruleRow(5));
    expect(episodes).to.deep.equal([episode(1, 'a', 'firing')]);
    expect(clock).to.deep.equal({ seq: 1, at: micros + 3_000_000 });
  });
});

describe('the revision of a rule', () => {
  let database: FreshDatabase;
  let pool: PgPool;
  before(async () => {
    database = await freshDatabase();
    await migrate(database.url, { demo: false, log: silentLogger() });
    pool = createPool(database.url, 'test', silentLogger(), 1);
    await pool.query(
      `INSERT INTO headwater.alert_rules (user_id, name, table_name, condition) VALUES ('ann', 'a', 'public.quotes', '{"field":"a","op":"gt","value":1}')`,
    );
  });
  after(async () => {
    await pool?.end();
    await database?.drop();
  });
  const revisionAfter = async (change: string): Promise<number> => {
    await pool.query(`UPDATE headwater.alert_rules SET ${change}`);
    return (await pool.query<{ revision: number }>('SELECT revision FROM headwater.alert_rules')).rows[0]!.revision;
  };

  it('grows by one with a change, by SQL too, and stays with none', async () => {
    expect(await revisionAfter(`name = 'a', enabled = true`)).to.equal(1);
    expect(await revisionAfter(`name = 'b'`)).to.equal(2);
    expect(await revisionAfter(`channels = '[{"type":"push"}]'`)).to.equal(3);
    expect(await revisionAfter('updated_at = now()')).to.equal(3);
    expect(await revisionAfter(`name = 'c', revision = revision + 1`)).to.equal(4);
    expect(await revisionAfter('revision = 1')).to.equal(4);
  });

  it('names one rule of one user for ever', async () => {
    for (const change of [`user_id = 'bob'`, 'id = gen_random_uuid()'])
      expect(await revisionAfter(change).catch((error: Error) => error.message)).to.match(/cannot change/);
  });
});
