import { expect } from 'chai';
import type { ChildProcess } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { PgClient } from '../../../../pipeline/clients/postgres.ts';
import { pause } from '../../../../pipeline/runtime/backoff.ts';
import { namespaceOf } from '../../../../processors/aggregates/store/keys.ts';
import { captureFixture, type CaptureFixture } from '../../../pipeline/capture/support/fixture.ts';
import { Random } from '../../../pipeline/capture/support/random.ts';
import { Instances } from '../../../support/instances.ts';
import { redisDatabase, type RedisDatabase } from '../../../support/redis-database.ts';
import { temporaryDirectory } from '../../../support/servers.ts';
import { differences, expectedWindows } from './expected.ts';
import { foldedTo, untilFolded } from './running.ts';
import { storedWindows } from './stored-windows.ts';
import { crowdStatements, tradesCatalog, tradesChecks, tradesSchema, tradesYaml, tradeStatements } from './trades.ts';

export interface AggregatesCrashOptions {
  readonly kills: number;
  readonly seed: number;
  /** Most time between two kills, ms. */
  readonly lifeMs: number;
  readonly say?: (text: string) => void;
}

export interface AggregatesCrashReport {
  readonly events: number;
  readonly windows: number;
  /** Kills that met an instance that was working. */
  readonly ofWorking: number;
}

const instances = 2;
const checked = tradesChecks();
const definitions = checked.map(({ definition }) => definition);

/**
 * The aggregates role as processes of its own, under changes at random. One is killed again and again, and leases are sometimes taken
 * from an instance that lives. At the end the windows must be those that SQL makes of the tables.
 */
export async function aggregatesCrashTrial(options: AggregatesCrashOptions): Promise<AggregatesCrashReport> {
  const fixture = await captureFixture();
  const redis = await redisDatabase(2);
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
  readonly #options: AggregatesCrashOptions;
  readonly #random: Random;
  readonly #fixture: CaptureFixture;
  readonly #redis: RedisDatabase;
  readonly #directory = temporaryDirectory();
  readonly #instances: Instances;
  #ofWorking = 0;

  constructor(options: AggregatesCrashOptions, fixture: CaptureFixture, redis: RedisDatabase) {
    this.#options = options;
    this.#random = new Random(options.seed);
    this.#fixture = fixture;
    this.#redis = redis;
    this.#instances = new Instances('aggregates', {
      DATABASE_URL: fixture.databaseUrl,
      NATS_URL: fixture.natsUrls.operator,
      REDIS_URL: redis.url,
      HEADWATER_CATALOG: join(this.#directory, 'catalog.yaml'),
    });
  }

  get lastWords(): string {
    return this.#instances.lastWords;
  }

  async run(): Promise<AggregatesCrashReport> {
    for (const statement of tradesSchema) await this.#fixture.sql.query(statement);
    await this.#fixture.streaming({ catalog: tradesCatalog(), env: { HEADWATER_TICK: '200ms' } });
    writeFileSync(join(this.#directory, 'catalog.yaml'), tradesYaml);
    for (let i = 0; i < instances; i++) this.#instances.start();
    const stopping = new AbortController();
    const load = this.#load(await this.#fixture.connect(), stopping.signal);
    try {
      for (let kill = 1; kill <= this.#options.kills; kill++) await this.#killOnce(kill);
    } finally {
      stopping.abort();
      await load;
    }
    const { seq } = (await this.#fixture.settled(60_000)).at(-1)!;
    await untilFolded(this.#redis, definitions, seq, 60_000);
    await this.end();
    return { events: seq, windows: await this.#compare(), ofWorking: this.#ofWorking };
  }

  async end(): Promise<void> {
    await this.#instances.killAll();
    rmSync(this.#directory, { recursive: true, force: true });
  }

  async #load(client: PgClient, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const statements = this.#random.chance(0.002) ? crowdStatements(this.#random) : tradeStatements(this.#random);
      await client.query(['BEGIN', ...statements, 'COMMIT'].join(';\n'));
      await pause(this.#random.int(0, 6), signal);
    }
  }

  /** Kills an instance once a definition has moved on a little. */
  async #killOnce(kill: number): Promise<void> {
    const { lifeMs, kills, say } = this.#options;
    const watched = this.#random.pick(definitions);
    const before = await foldedTo(this.#redis, watched);
    await this.#fixture.until(
      async () => {
        this.#instances.check();
        return (await foldedTo(this.#redis, watched)) > before;
      },
      `progress of ${watched.name}`,
      60_000,
    );
    await pause(this.#random.int(0, lifeMs));
    if (this.#random.chance(0.2)) {
      say?.(`${kill} of ${kills}: a lease is taken from whoever has it`);
      await this.#redis.client.del(this.#leaseOf(watched));
      await pause(this.#random.int(0, lifeMs));
    }
    const workers = await this.#workers();
    const victim = this.#random.pick(this.#random.chance(0.8) && workers.length > 0 ? workers : this.#instances.running);
    await this.#instances.kill(victim);
    const worked = await this.#dropLeases(victim.pid!);
    say?.(`${kill} of ${kills}: killed ${victim.pid}, which worked on ${worked}`);
    if (worked > 0) this.#ofWorking++;
    this.#instances.start();
  }

  /** The instances that work on something. */
  async #workers(): Promise<ChildProcess[]> {
    const owners = await Promise.all(definitions.map((definition) => this.#redis.client.get(this.#leaseOf(definition))));
    const pids = new Set(owners.map((owner) => Number(owner?.split(':').at(-2))));
    return this.#instances.running.filter(({ pid }) => pids.has(pid!));
  }

  /** As if the leases of a process had lapsed. Returns how many it had. */
  async #dropLeases(pid: number): Promise<number> {
    let dropped = 0;
    for (const definition of definitions) {
      const owner = await this.#redis.client.get(this.#leaseOf(definition));
      if (Number(owner?.split(':').at(-2)) === pid) dropped += await this.#redis.client.del(this.#leaseOf(definition));
    }
    return dropped;
  }

  #leaseOf({ name, hash }: (typeof definitions)[number]): string {
    return namespaceOf(name, hash).lease('aggregates');
  }

  async #compare(): Promise<number> {
    let windows = 0;
    for (const { definition, from, id } of checked) {
      const stored = await storedWindows(this.#redis.client, definition);
      const expected = await expectedWindows(this.#fixture.sql, definition, from, id);
      const lines = differences(stored, expected).map((line) => line.replaceAll(/(.)\1{9,}/g, '$1…'));
      expect(lines.slice(0, 10), definition.name).to.deep.equal([]);
      windows += expected.length;
    }
    return windows;
  }
}
