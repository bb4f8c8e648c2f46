import type { ChildProcess } from 'node:child_process';
import { migrate } from '../../../../deploy/migrate.ts';
import { pause } from '../../../../pipeline/runtime/backoff.ts';
import { silentLogger } from '../../../../pipeline/runtime/logging.ts';
import { captureFixture, type CaptureFixture } from '../../../pipeline/capture/support/fixture.ts';
import { Random } from '../../../pipeline/capture/support/random.ts';
import { Instances } from '../../../support/instances.ts';
import { testServers } from '../../../support/servers.ts';
import { crashSchema, runLoad } from './crash-load.ts';
import { expectHistoryOfFold } from './history.ts';

export interface AlertsCrashOptions {
  readonly kills: number;
  readonly seed: number;
  /** Most time between two kills, ms. */
  readonly lifeMs: number;
  readonly say?: (text: string) => void;
}

export interface AlertsCrashReport {
  readonly events: number;
  readonly alerts: number;
  readonly transitions: number;
  /** Kills that met the instance that was working. */
  readonly ofWorking: number;
}

const instances = 2;

/**
 * The alerts role as processes of its own, one working and one standing by, under a load of changes of rows and rules. One is
 * killed again and again, and the lease is sometimes taken from an instance that lives. At the end the history must be that
 * of a fresh engine that folds the same log, and the outbox must have each transition once, in their order.
 */
export async function alertsCrashTrial(options: AlertsCrashOptions): Promise<AlertsCrashReport> {
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
  readonly #options: AlertsCrashOptions;
  readonly #random: Random;
  readonly #fixture: CaptureFixture;
  readonly #instances: Instances;
  #ofWorking = 0;

  constructor(options: AlertsCrashOptions, fixture: CaptureFixture, redisUrl: string) {
    this.#options = options;
    this.#random = new Random(options.seed);
    this.#fixture = fixture;
    this.#instances = new Instances('alerts', {
      DATABASE_URL: fixture.databaseUrl,
      NATS_URL: fixture.natsUrls.operator,
      REDIS_URL: redisUrl,
    });
  }

  get lastWords(): string {
    return this.#instances.lastWords;
  }

  async run(): Promise<AlertsCrashReport> {
    const { sql, databaseUrl } = this.#fixture;
    await migrate(databaseUrl, { demo: false, log: silentLogger() });
    for (const statement of crashSchema) await sql.query(statement);
    await this.#fixture.streaming({ env: { HEADWATER_TICK: '200ms' } });
    for (let i = 0; i < instances; i++) this.#instances.start();
    const stopping = new AbortController();
    const load = runLoad(await this.#fixture.connect(), this.#random, stopping.signal);
    try {
      for (let kill = 1; kill <= this.#options.kills; kill++) await this.#killOnce(kill);
    } finally {
      stopping.abort();
      await load;
    }
    await this.#level();
    return this.#judge();
  }

  async end(): Promise<void> {
    await this.#instances.killAll();
  }

  /** Kills the working instance, or the one that stands by, once the offset has moved a little. */
  async #killOnce(kill: number): Promise<void> {
    const { lifeMs, kills, say } = this.#options;
    const before = await this.#offset();
    await this.#fixture.until(() => this.#moved(before), 'progress of the alerts', 60_000);
    await pause(this.#random.int(0, lifeMs));
    const working = await this.#working();
    if (working && this.#random.chance(0.2)) {
      say?.(`${kill} of ${kills}: the lease is taken from ${working.pid}`);
      await this.#dropLease();
      await pause(this.#random.int(0, lifeMs));
    }
    const victim = this.#random.chance(0.8) ? (working ?? this.#instances.running[0]!) : this.#random.pick(this.#instances.running);
    say?.(`${kill} of ${kills}: kill ${victim.pid}${victim === working ? ', which works' : ''}`);
    await this.#instances.kill(victim);
    if (victim === working) {
      this.#ofWorking++;
      // As if it had lapsed.
      await this.#dropLease();
    }
    this.#instances.start();
  }

  async #moved(before: number): Promise<boolean> {
    this.#instances.check();
    return (await this.#offset()) > before;
  }

  async #offset(): Promise<number> {
    const [row] = await this.#fixture.query('SELECT seq::float8 AS seq FROM headwater.processor_offsets');
    return Number(row?.['seq'] ?? -1);
  }

  async #working(): Promise<ChildProcess | undefined> {
    const [row] = await this.#fixture.query('SELECT owner FROM headwater.processor_offsets');
    const pid = Number(String(row?.['owner']).split(':').at(-2));
    return this.#instances.running.find((child) => child.pid === pid);
  }

  async #dropLease(): Promise<void> {
    await this.#fixture.query('UPDATE headwater.processor_offsets SET owner = NULL, leased_until = NULL');
  }

  /** Waits until everything up to now is folded, then ends the instances. */
  async #level(): Promise<void> {
    const seq = (await this.#fixture.settled(60_000)).at(-1)!.seq;
    await this.#fixture.until(
      async () => {
        this.#instances.check();
        return (await this.#offset()) >= seq;
      },
      'the end of the load',
      60_000,
    );
    await this.end();
  }

  async #judge(): Promise<AlertsCrashReport> {
    const end = await this.#offset();
    return { events: end, ...(await expectHistoryOfFold(this.#fixture, end)), ofWorking: this.#ofWorking };
  }
}
