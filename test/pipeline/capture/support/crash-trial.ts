import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { startLocalServices, type LocalServices } from '../../../../deploy/local/services.ts';
import { connectNats } from '../../../../pipeline/clients/nats.ts';
import { connectPostgres, type PgClient } from '../../../../pipeline/clients/postgres.ts';
import { JetStreamLog } from '../../../../pipeline/log/jetstream-log.ts';
import { pause } from '../../../../pipeline/runtime/backoff.ts';
import { silentLogger } from '../../../../pipeline/runtime/logging.ts';
import { startCli } from '../../../cli/support/run-cli.ts';
import { removeData, temporaryDirectory } from '../../../support/servers.ts';
import { CrashLoad, loadSchema, loadTables } from './crash-load.ts';
import { expectSameHistory, expectSameTables, Oracle } from './oracle.ts';
import { Random } from './random.ts';
import { expectWellFormed, readLog, waitFor, type StoredEvent } from './stored-events.ts';

/** What is killed at once. */
export type Victims = readonly ('capture' | 'nats' | 'postgres')[];

export interface CrashTrialOptions {
  readonly kills: number;
  /** One of these is chosen for each kill. */
  readonly victims: readonly Victims[];
  readonly seed: number;
  /** Most time from the begin of streaming to the next kill, ms; every third kill comes at any moment of the start instead. */
  readonly lifeMs: number;
  readonly say?: (text: string) => void;
}

export interface CrashReport {
  readonly events: number;
  readonly transactions: number;
  readonly commits: number;
  /** From the last restart to the log being level with the database, ms. */
  readonly recoveryMs: number;
}

/**
 * Capture as a process of its own between real servers, under a load of random transactions; capture and servers are killed
 * at random moments and started again. At the end the log must equal the database's own history.
 */
export async function crashTrial(options: CrashTrialOptions): Promise<CrashReport> {
  const postgres = await RestartableServer.start('postgres');
  const nats = await RestartableServer.start('nats');
  const trial = new Trial(options, postgres, nats);
  try {
    return await trial.run();
  } catch (error) {
    (error as Error).message += `\n(seed ${options.seed}) capture said last:\n${trial.lastWords}`;
    throw error;
  } finally {
    await trial.end();
    await postgres.remove();
    await nats.remove();
  }
}

/** A server that can be killed and started again on the same data and port. */
class RestartableServer {
  readonly #kind: 'postgres' | 'nats';
  readonly #data: string;
  services!: LocalServices;

  private constructor(kind: 'postgres' | 'nats') {
    this.#kind = kind;
    this.#data = temporaryDirectory();
  }

  static async start(kind: 'postgres' | 'nats'): Promise<RestartableServer> {
    const server = new RestartableServer(kind);
    await server.#start();
    return server;
  }

  /** PostgreSQL by an immediate shutdown, which leaves recovery to the next start; NATS by SIGKILL. */
  async kill(downMs: number): Promise<void> {
    process.kill(this.services.pids[this.#kind]!, this.#kind === 'postgres' ? 'SIGQUIT' : 'SIGKILL');
    await this.services.stop();
    await pause(downMs);
    await this.#start();
  }

  async remove(): Promise<void> {
    await this.services.stop();
    await removeData(this.#data);
  }

  async #start(): Promise<void> {
    const need = { postgres: this.#kind === 'postgres', nats: this.#kind === 'nats', redis: false };
    this.services = await startLocalServices({ data: this.#data, need, install: true, log: silentLogger() });
  }
}

class Trial {
  readonly #options: CrashTrialOptions;
  readonly #random: Random;
  readonly #servers: { readonly postgres: RestartableServer; readonly nats: RestartableServer };
  #child: ChildProcess | undefined;
  #said: string[] = [];
  #killing = false;
  #streams = false;
  #failure: Error | undefined;

  constructor(options: CrashTrialOptions, postgres: RestartableServer, nats: RestartableServer) {
    this.#options = options;
    this.#random = new Random(options.seed);
    this.#servers = { postgres, nats };
  }

  get lastWords(): string {
    return this.#said.slice(-25).join('');
  }

  async run(): Promise<CrashReport> {
    const oracle = await this.#withDatabase(async (client) => {
      for (const statement of loadSchema) await client.query(statement);
      return Oracle.create(client);
    });
    this.#startCapture();
    await this.#slotIsThere();
    const load = new CrashLoad(this.#databaseUrl, this.#random);
    try {
      for (let kill = 1; kill <= this.#options.kills; kill++) await this.#killOnce(kill);
    } finally {
      await load.stop();
    }
    const { events, recoveryMs } = await this.#level();
    return this.#withDatabase(async (client) => {
      expectWellFormed(events);
      const history = await oracle.entriesTo(client, 'load.end');
      expectSameHistory(history, events);
      await expectSameTables(client, events, loadTables);
      return { events: events.length, transactions: history.length, commits: load.commits, recoveryMs };
    });
  }

  async end(): Promise<void> {
    await this.#killCapture();
  }

  get #databaseUrl(): string {
    return this.#servers.postgres.services.databaseUrl!;
  }

  async #killOnce(kill: number): Promise<void> {
    const { lifeMs, victims, say, kills } = this.#options;
    if (this.#random.chance(0.67)) await this.#streaming();
    await pause(this.#random.int(0, lifeMs));
    if (this.#failure) throw this.#failure;
    const chosen = this.#random.pick(victims);
    say?.(`kill ${kill} of ${kills}: ${chosen.join(' and ')}`);
    const down = (): number => (this.#random.chance(0.5) ? 0 : this.#random.int(50, 800));
    const servers = chosen.filter((victim) => victim !== 'capture').map((victim) => this.#servers[victim].kill(down()));
    if (chosen.includes('capture')) await this.#killCapture();
    // It outlives NATS.
    else if (chosen.includes('postgres')) this.#streams = false;
    await Promise.all(servers);
    if (chosen.includes('capture')) this.#startCapture();
  }

  #startCapture(): void {
    const { postgres, nats } = this.#servers;
    const child = startCli(['run', 'capture'], {
      DATABASE_URL: postgres.services.databaseUrl!,
      NATS_URL: nats.services.nats!.capture,
      REDIS_URL: 'redis://127.0.0.1:1',
      HEADWATER_ADMIN_PORT: '0',
      HEADWATER_TICK: '200ms',
    });
    this.#streams = false;
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.#said.push(text);
      if (text.includes('streaming after sequence')) this.#streams = true;
    });
    child.once('exit', (code, signal) => {
      if (!this.#killing) this.#failure = new Error(`capture ended by itself: ${String(code ?? signal)}`);
    });
    this.#child = child;
  }

  async #killCapture(): Promise<void> {
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    this.#killing = true;
    child.kill('SIGKILL');
    await once(child, 'exit');
    this.#killing = false;
  }

  async #streaming(): Promise<void> {
    for (let i = 0; i < 1_500 && !this.#failure && !this.#streams; i++) await pause(20);
    if (!this.#streams) throw this.#failure ?? new Error('capture did not stream within 30 s');
  }

  /** The load must not begin before capture counts, or its first rows would be in the snapshot instead of in the stream. */
  async #slotIsThere(): Promise<void> {
    await this.#withDatabase(async (client) => {
      for (let i = 0; i < 400; i++) {
        const { rowCount } = await client.query(
          `SELECT FROM pg_replication_slots WHERE slot_name = 'headwater' AND confirmed_flush_lsn IS NOT NULL`,
        );
        if (rowCount) return;
        if (this.#failure) throw this.#failure;
        await pause(50);
      }
      throw new Error('capture made no slot within 20 s');
    });
  }

  /** Waits until the log has come to the end of the load, and reads it. */
  async #level(): Promise<{ events: StoredEvent[]; recoveryMs: number }> {
    const begun = performance.now();
    await this.#withDatabase((client) => client.query(`SELECT pg_logical_emit_message(true, 'load.end', 'end')`));
    const connection = await connectNats(this.#servers.nats.services.nats!.operator, 'crash test', silentLogger());
    try {
      const log = await JetStreamLog.open(connection, { stream: 'EVENTS', subject: 'ev' }, silentLogger());
      await waitFor(log, (event) => event.prefix === 'load.end', 60_000, 'the end of the load');
      const recoveryMs = Math.round(performance.now() - begun);
      await this.#killCapture();
      const events = await readLog(log);
      log.close();
      return { events: events.slice(0, events.findLastIndex((event) => event.prefix === 'load.end') + 1), recoveryMs };
    } finally {
      await connection.close();
    }
  }

  async #withDatabase<T>(work: (client: PgClient) => Promise<T>): Promise<T> {
    const client = await connectPostgres(this.#databaseUrl, 'crash test', silentLogger());
    try {
      return await work(client);
    } finally {
      await client.end();
    }
  }
}
