import { expect } from 'chai';
import { migrate } from '../../../deploy/migrate.ts';
import type { BesideState } from '../../../pipeline/runner/rebuild/model.ts';
import { pause } from '../../../pipeline/runtime/backoff.ts';
import { silentLogger } from '../../../pipeline/runtime/logging.ts';
import { AlertEngine } from '../../../processors/alerts/engine/alert-engine.ts';
import { alertEffects } from '../../../processors/alerts/store/alert-effects.ts';
import { entitiesQuery } from '../../../processors/alerts/store/entity-journal.ts';
import { captureFixture, type CaptureFixture } from '../../pipeline/capture/support/fixture.ts';
import { Random } from '../../pipeline/capture/support/random.ts';
import { crashSchema, runLoad } from '../../processors/alerts/support/crash-load.ts';
import { expectHistoryOfFold } from '../../processors/alerts/support/history.ts';
import { Instances } from '../../support/instances.ts';
import { testServers } from '../../support/servers.ts';
import { alertsPhases } from './alerts-phases.ts';
import { RebuildWalk } from './walk.ts';
import type { TrialOptions, TrialReport } from './trial.ts';

const stateTables = ['tables', 'rules', 'episodes', 'entities', 'samples', 'journal'].map((name) => `headwater.alert_state_${name}`);
const fresh = 'a fresh fold';
/** So many events come at once, and few later: how many there are does not depend on how fast the machine is. */
const much = 1_000;
const slowMs = 300;
const patienceMs = 180_000;

/**
 * Alerts are rebuilt under a load of changes of rows and rules while commands and the role are killed. The state of what is live is never of an earlier time; at the
 * end it is that of a fresh engine, and so are history and outbox, which no rebuild may add to; nothing is left of what stood beside.
 */
export async function alertsRebuildTrial(options: TrialOptions): Promise<TrialReport> {
  const fixture = await captureFixture();
  const trial = new Trial(options, fixture, (await testServers()).redisUrl);
  try {
    return await trial.run();
  } catch (error) {
    (error as Error).message += `\n(seed ${options.seed}) the alerts said last:\n${trial.lastWords}`;
    throw error;
  } finally {
    await trial.end();
    await fixture.close();
  }
}

class Trial {
  readonly #options: TrialOptions;
  readonly #random: Random;
  readonly #fixture: CaptureFixture;
  readonly #role: Instances;
  readonly #env: Record<string, string>;
  #walk: RebuildWalk | undefined;
  #readings = 0;

  constructor(options: TrialOptions, fixture: CaptureFixture, redisUrl: string) {
    this.#options = options;
    this.#random = new Random(options.seed);
    this.#fixture = fixture;
    this.#env = { DATABASE_URL: fixture.databaseUrl, NATS_URL: fixture.natsUrls.operator, REDIS_URL: redisUrl };
    this.#role = new Instances('alerts', this.#env);
  }

  get lastWords(): string {
    return this.#role.lastWords;
  }

  async run(): Promise<TrialReport> {
    const { sql, databaseUrl } = this.#fixture;
    await migrate(databaseUrl, { demo: false, log: silentLogger() });
    for (const statement of crashSchema) await sql.query(statement);
    await this.#fixture.streaming({ env: { HEADWATER_TICK: '100ms' } });
    this.#role.start();
    const stopping = new AbortController();
    const load = this.#load(stopping.signal);
    await this.#fixture.until(async () => (await this.#live()).seq >= much, 'the alerts', patienceMs);
    this.#walk = await RebuildWalk.begin({
      name: 'alerts',
      state: async () =>
        (await this.#fixture.query('SELECT state FROM headwater.processor_rebuilds'))[0]?.['state'] as BesideState | undefined,
      env: this.#env,
      server: 'DATABASE_URL',
      role: this.#role,
      lapse: (of) => this.#lapse(of),
      phases: alertsPhases,
      random: this.#random,
      ...(this.#options.say && { say: this.#options.say }),
    });
    const reading = this.#read(stopping.signal);
    reading.catch(() => stopping.abort());
    try {
      await this.#walk.wander(this.#options.kills);
      await this.#walk.clear();
      await this.#walk.flip();
      await this.#walk.clear('drop');
    } finally {
      stopping.abort();
      await load;
    }
    await reading;
    const { seq } = (await this.#fixture.settled(patienceMs)).at(-1)!;
    await this.#fixture.until(async () => (await this.#live()).seq >= seq, 'the end of the load', patienceMs);
    await this.#role.killAll();
    const end = (await this.#live()).seq;
    const { transitions } = await expectHistoryOfFold(this.#fixture, end);
    expect(transitions, 'transitions').to.be.greaterThan(50);
    await this.#expectNothingLeft();
    await this.#expectStateOfFold(end);
    const { kills, roleKills } = this.#walk;
    return { events: end, kills: Object.fromEntries(kills), roleKills, readings: this.#readings };
  }

  async end(): Promise<void> {
    await this.#role.killAll();
    await this.#walk?.close();
  }

  async #load(signal: AbortSignal): Promise<void> {
    const client = await this.#fixture.connect();
    const quick = new AbortController();
    const begun = runLoad(client, this.#random, quick.signal);
    try {
      const log = await this.#fixture.log();
      await this.#fixture.until(async () => (await log.bounds()).last >= much, 'a load', patienceMs);
    } finally {
      quick.abort();
      await begun;
    }
    await runLoad(client, this.#random, signal, slowMs);
  }

  /** How far the live state is and how much there is of it, seen at one moment. */
  async #live(): Promise<{ readonly seq: number; readonly rules: number; readonly entities: number }> {
    const [row] = await this.#fixture.query(
      `SELECT seq::float8 AS seq,
         (SELECT count(*) FROM headwater.alert_state_rules s WHERE s.processor = coalesce(o.namespace, o.processor))::int AS rules,
         (SELECT count(*) FROM headwater.alert_state_entities s WHERE s.processor = coalesce(o.namespace, o.processor))::int
         + (SELECT count(*) FROM headwater.alert_state_journal s WHERE s.processor = coalesce(o.namespace, o.processor))::int AS entities
       FROM headwater.processor_offsets o WHERE processor = 'alerts'`,
    );
    return { seq: Number(row?.['seq'] ?? -1), rules: Number(row?.['rules'] ?? 0), entities: Number(row?.['entities'] ?? 0) };
  }

  async #read(signal: AbortSignal): Promise<void> {
    for (let before = 0; !signal.aborted; this.#readings++) {
      const { seq, rules, entities } = await this.#live();
      expect(seq, 'the state is older').to.be.at.least(before);
      expect(Math.min(rules, entities), 'the state is empty').to.be.greaterThan(0);
      before = seq;
      await pause(25, signal);
    }
  }

  async #lapse(of: (owner: number | 'rebuild') => boolean): Promise<void> {
    for (const { owner } of await this.#fixture.query('SELECT owner FROM headwater.processor_offsets WHERE owner IS NOT NULL')) {
      const who = String(owner);
      if (of(/^(rebuild|remove):/.test(who) ? 'rebuild' : Number(who.split(':').at(-2))))
        await this.#fixture.query('UPDATE headwater.processor_offsets SET owner = NULL, leased_until = NULL WHERE owner = $1', [who]);
    }
  }

  async #expectNothingLeft(): Promise<void> {
    expect(await this.#fixture.query('SELECT * FROM headwater.processor_rebuilds')).to.deep.equal([]);
    const offsets = await this.#fixture.query(
      'SELECT processor, coalesce(namespace, processor) AS namespace FROM headwater.processor_offsets',
    );
    expect(offsets.map(({ processor }) => processor)).to.deep.equal(['alerts']);
    for (const table of stateTables) {
      const rows = await this.#fixture.query(`SELECT DISTINCT processor FROM ${table} WHERE processor <> $1`, [offsets[0]!['namespace']]);
      expect(rows, `rows of nobody in ${table}`).to.deep.equal([]);
    }
  }

  /** What is stored is what a fresh engine makes of the log in one go. */
  async #expectStateOfFold(end: number): Promise<void> {
    const [live] = await this.#fixture.query(
      'SELECT coalesce(namespace, processor) AS namespace, head::text FROM headwater.processor_offsets',
    );
    const engine = new AlertEngine();
    const effects = engine.begin();
    for await (const events of (await this.#fixture.log()).read(1)) {
      for (const event of events) if (event.seq <= end) engine.apply(event, effects);
      if (events.at(-1)!.seq >= end) break;
    }
    const store = alertEffects({ silent: true });
    await store.write(this.#fixture.sql, effects, fresh);
    expect(JSON.parse(String(live!['head'])), 'the clock').to.deep.equal(JSON.parse(store.head!(effects)!));
    const stored = async (query: string): Promise<string[]> => (await this.#fixture.query(query)).map((row) => JSON.stringify(row)).sort();
    for (const table of stateTables.filter((name) => !/entities|journal/.test(name))) {
      const rows = (namespace: string): string =>
        `SELECT to_jsonb(s) - 'processor' AS row FROM ${table} s WHERE processor = '${namespace}'`;
      expect(await stored(rows(String(live!['namespace']))), table).to.deep.equal(await stored(rows(fresh)));
    }
    const entities = (namespace: string): string => `SELECT what, content::jsonb FROM (${entitiesQuery(`'${namespace}'`)}) entities`;
    const found = await stored(entities(String(live!['namespace'])));
    expect(found.length, 'entities').to.be.greaterThan(12);
    expect(found, 'entities').to.deep.equal(await stored(entities(fresh)));
  }
}
