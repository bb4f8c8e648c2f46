import { expect } from 'chai';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { PgClient } from '../../../pipeline/clients/postgres.ts';
import type { BesideState } from '../../../pipeline/runner/rebuild/model.ts';
import { pause } from '../../../pipeline/runtime/backoff.ts';
import type { Definition } from '../../../processors/aggregates/model.ts';
import { AggregateReader } from '../../../processors/aggregates/read/reader.ts';
import { aggregateKeys, namespaceOf, namespacesKey, registryKey } from '../../../processors/aggregates/store/keys.ts';
import { Registry } from '../../../processors/aggregates/store/registry.ts';
import { captureFixture, type CaptureFixture } from '../../pipeline/capture/support/fixture.ts';
import { Random } from '../../pipeline/capture/support/random.ts';
import { differences, expectedWindows } from '../../processors/aggregates/support/expected.ts';
import { untilFolded } from '../../processors/aggregates/support/running.ts';
import { storedWindows } from '../../processors/aggregates/support/stored-windows.ts';
import { tradesCatalog, tradesChecks, tradesSchema, tradesYaml, tradeStatements } from '../../processors/aggregates/support/trades.ts';
import { Instances } from '../../support/instances.ts';
import { redisDatabase, type RedisDatabase } from '../../support/redis-database.ts';
import { temporaryDirectory } from '../../support/servers.ts';
import { RebuildWalk } from './walk.ts';
import type { TrialOptions, TrialReport } from './trial.ts';

const checked = tradesChecks();
const patienceMs = 180_000;

/**
 * One of the aggregates is rebuilt under changes at random while commands and the role are killed. Readers never see less than before; at the end
 * the windows are those that SQL makes of the tables, also those that had been spoiled, and nothing is left of what stood beside.
 */
export async function aggregatesRebuildTrial(options: TrialOptions & { readonly name: 'rows' | 'changes' }): Promise<TrialReport> {
  const fixture = await captureFixture();
  const redis = await redisDatabase(7);
  const trial = new Trial(options, fixture, redis);
  try {
    return await trial.run();
  } catch (error) {
    (error as Error).message += `\n(seed ${options.seed}) the aggregates said last:\n${trial.lastWords}`;
    throw error;
  } finally {
    await trial.end();
    await redis.close();
    await fixture.close();
  }
}

class Trial {
  readonly #options: TrialOptions & { readonly name: string };
  readonly #random: Random;
  readonly #fixture: CaptureFixture;
  readonly #redis: RedisDatabase;
  readonly #directory = temporaryDirectory();
  readonly #role: Instances;
  readonly #env: Record<string, string>;
  readonly #definition: Definition;
  #walk: RebuildWalk | undefined;
  #readings = 0;

  constructor(options: TrialOptions & { readonly name: string }, fixture: CaptureFixture, redis: RedisDatabase) {
    this.#options = options;
    this.#random = new Random(options.seed);
    this.#fixture = fixture;
    this.#redis = redis;
    this.#env = {
      DATABASE_URL: fixture.databaseUrl,
      NATS_URL: fixture.natsUrls.operator,
      REDIS_URL: redis.url,
      HEADWATER_CATALOG: join(this.#directory, 'catalog.yaml'),
    };
    this.#role = new Instances('aggregates', this.#env);
    this.#definition = checked.find(({ definition }) => definition.name === options.name)!.definition;
  }

  get lastWords(): string {
    return this.#role.lastWords;
  }

  async run(): Promise<TrialReport> {
    for (const statement of tradesSchema) await this.#fixture.sql.query(statement);
    await this.#fixture.streaming({ catalog: tradesCatalog(), env: { HEADWATER_TICK: '100ms' } });
    writeFileSync(join(this.#directory, 'catalog.yaml'), tradesYaml);
    this.#role.start();
    const stopping = new AbortController();
    const load = this.#load(await this.#fixture.connect(), stopping.signal);
    await this.#fixture.until(async () => (await this.#served()).size === checked.length, 'the aggregates', patienceMs);
    const { seq: begun } = (await this.#fixture.settled(patienceMs)).at(-1)!;
    await untilFolded(this.#redis, (await this.#served()).values(), begun, patienceMs);
    this.#walk = await RebuildWalk.begin({
      name: `aggregates.${this.#options.name}`,
      state: async () => ((await this.#redis.client.hget(this.#record, 'state')) as BesideState | null) ?? undefined,
      env: this.#env,
      server: 'REDIS_URL',
      role: this.#role,
      lapse: (of) => this.#lapse(of),
      phases: {
        // A commit of many events.
        fill: { of: (piece) => piece.includes('filling:') && piece.length > 2_000, least: 2 },
        // The levels, as arguments.
        comparison: { of: (piece) => /\[\["\d+\w",\d+,/.test(piece.toString('latin1')), least: 1 },
        flip: { of: (piece) => piece.includes('filling:') && piece.includes(registryKey), least: 1 },
        drop: { of: (piece) => piece.includes('dropping:'), least: 1 },
      },
      random: this.#random,
      ...(this.#options.say && { say: this.#options.say }),
    });
    const reading = this.#read(stopping.signal);
    reading.catch(() => stopping.abort());
    try {
      await this.#walk.wander(this.#options.kills);
      await this.#walk.clear();
      await this.#spoil();
      await this.#walk.flip();
      await this.#walk.clear('drop');
    } finally {
      stopping.abort();
      await load;
    }
    await reading;
    const { seq } = (await this.#fixture.settled(patienceMs)).at(-1)!;
    const served = [...(await this.#served()).values()];
    await untilFolded(this.#redis, served, seq, patienceMs);
    await this.#role.killAll();
    await this.#lapse(() => true);
    await this.#expectNothingLeft();
    await this.#expectSql();
    const { kills, roleKills } = this.#walk;
    return { events: seq, kills: Object.fromEntries(kills), roleKills, readings: this.#readings };
  }

  async end(): Promise<void> {
    await this.#role.killAll();
    await this.#walk?.close();
    rmSync(this.#directory, { recursive: true, force: true });
  }

  get #record(): string {
    return `{hw}:rebuild:aggregates.${this.#options.name}`;
  }

  async #served(): Promise<ReadonlyMap<string, Definition>> {
    const entries = await new Registry(this.#redis.client).entries();
    return new Map([...entries].map(([name, { definition }]) => [name, definition]));
  }

  async #load(client: PgClient, signal: AbortSignal): Promise<void> {
    for (let done = 0; !signal.aborted; done++) {
      // Nothing that empties a state by right.
      const statements = tradeStatements(this.#random).filter((statement) => !statement.startsWith('TRUNCATE'));
      await client.query(['BEGIN', ...statements, 'COMMIT'].join(';\n'));
      // Much at once, and little later: how much there is does not depend on how fast the machine is.
      if (done > 400) await pause(this.#random.int(0, 300), signal);
    }
  }

  /** What is read is never of an earlier time than what was read before, and never nothing. */
  async #read(signal: AbortSignal): Promise<void> {
    const reader = new AggregateReader(this.#redis.client);
    const level = this.#definition.levels.find(({ text }) => text === '1h')!;
    const request = { groups: ['["a"]'], size: { window: level }, from: undefined, to: undefined, limit: 1_000 };
    for (let [before, counted] = [0, 0]; !signal.aborted; this.#readings++) {
      const page = await reader.use(this.#options.name, (view) => {
        const own = view.definition.levels.find(({ text }) => text === '1h')!;
        return view.series({ ...request, size: { window: own } });
      });
      expect(page!.seq, 'the state is older').to.be.at.least(before);
      const count = page!.items.reduce((sum, { item }) => sum + item.count, 0);
      expect(count, `the state is empty at ${page!.seq}, after ${counted} at ${before}`).to.be.greaterThan(0);
      // What was observed stays observed.
      if (this.#definition.of === 'changes') expect(count, 'observations are missing').to.be.at.least(counted);
      [before, counted] = [page!.seq, count];
      await pause(20, signal);
    }
  }

  async #lapse(of: (owner: number | 'rebuild') => boolean): Promise<void> {
    for (const key of await this.#redis.client.keys('{hw}:*:lease:*')) {
      const owner = await this.#redis.client.get(key);
      if (owner === null) continue;
      if (of(/^(rebuild|remove):/.test(owner) ? 'rebuild' : Number(owner.split(':').at(-2)))) await this.#redis.client.del(key);
    }
  }

  /** A bug of before. */
  async #spoil(): Promise<void> {
    const { client } = this.#redis;
    const { name, hash } = (await this.#served()).get(this.#options.name)!;
    const { prefix } = namespaceOf(name, hash);
    const windows = aggregateKeys.windows(prefix, '["a"]');
    const record = JSON.stringify(await client.hgetall(windows));
    for (const field of await client.hkeys(windows)) if (field.startsWith('1d:')) await client.hdel(windows, field);
    expect(JSON.stringify(await client.hgetall(windows))).to.not.equal(record);
  }

  async #expectNothingLeft(): Promise<void> {
    const served = await this.#served();
    const mine = [...served.values()].map(({ name, hash }) => namespaceOf(name, hash).prefix);
    const keys = await this.#redis.client.keys('*');
    const left = keys.filter((key) => key !== registryKey && key !== namespacesKey && !mine.some((prefix) => key.startsWith(`${prefix}:`)));
    expect(left, 'keys of nobody').to.deep.equal([]);
    const known = await this.#redis.client.smembers(namespacesKey);
    expect(known.sort()).to.deep.equal(Array.from(served.values(), ({ name, hash }) => `${name}:${hash}`).sort());
  }

  async #expectSql(): Promise<void> {
    const served = await this.#served();
    for (const { definition, from, id } of checked) {
      const stored = await storedWindows(this.#redis.client, served.get(definition.name)!);
      const lines = differences(stored, await expectedWindows(this.#fixture.sql, definition, from, id));
      expect(lines.map((line) => line.replaceAll(/(.)\1{9,}/g, '$1…')).slice(0, 10), definition.name).to.deep.equal([]);
    }
  }
}
