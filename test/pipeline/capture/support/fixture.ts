import { randomBytes } from 'node:crypto';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { startLocalServices, type LocalServices } from '../../../../deploy/local/services.ts';
import { startCapture, type Capture } from '../../../../pipeline/capture/capture.ts';
import { LogRecord, recordBucket } from '../../../../pipeline/capture/log-record.ts';
import { connectNats, openBucket, type NatsConnection } from '../../../../pipeline/clients/nats.ts';
import { connectPostgres, type PgClient } from '../../../../pipeline/clients/postgres.ts';
import { JetStreamLog } from '../../../../pipeline/log/jetstream-log.ts';
import { readConfig, type Config } from '../../../../pipeline/runtime/config.ts';
import { Health } from '../../../../pipeline/runtime/health.ts';
import { silentLogger } from '../../../../pipeline/runtime/logging.ts';
import { defaultCatalog, type Catalog } from '../../../../schemas/catalog.ts';
import { freshDatabase, removeData, temporaryDirectory } from '../../../support/servers.ts';
import { until } from '../../../support/role-context.ts';
import { readLog, waitFor, type StoredEvent } from './stored-events.ts';

type Environment = Readonly<Record<string, string>>;

/** One line of a log. */
export interface LogLine {
  readonly msg: string;
  readonly level: number;
  readonly [name: string]: unknown;
}

/** Capture in this process, with what it says. */
export interface RunningCapture extends Capture {
  readonly lines: readonly LogLine[];
  readonly health: Health;
  readonly metrics: Registry;
  /** Does any line contain this text? */
  said(text: string): boolean;
}

export interface StartOptions {
  readonly env?: Environment;
  readonly catalog?: Catalog;
  readonly snapshot?: boolean;
}

/** A database, a NATS server, a slot and a log of a test's own, and capture between them. */
export interface CaptureFixture {
  readonly databaseUrl: string;
  readonly slot: string;
  readonly natsUrls: { readonly operator: string; readonly capture: string };
  /** A connection of the application's. */
  readonly sql: PgClient;
  /** The operator's view of the log. */
  readonly nats: NatsConnection;
  readonly record: LogRecord;
  config(env?: Environment): Config;
  /** Starts capture; returns at once. */
  start(options?: StartOptions): RunningCapture;
  /** Starts capture, and returns when it streams. */
  streaming(options?: StartOptions): Promise<RunningCapture>;
  /** The log as it is. Only after a first start of capture. */
  log(): Promise<JetStreamLog>;
  events(): Promise<StoredEvent[]>;
  /** The log once it has come to now: everything committed before the call is in it. */
  settled(ms?: number): Promise<StoredEvent[]>;
  /** Waits until a table's earlier rows are in the log. */
  copied(table: string, ms?: number): Promise<void>;
  until(condition: () => boolean | Promise<boolean>, what: string, ms?: number): Promise<void>;
  query(statement: string, values?: readonly unknown[]): Promise<Record<string, unknown>[]>;
  /** Another connection, closed with the fixture. */
  connect(): Promise<PgClient>;
  onClose(cleanup: () => Promise<unknown> | void): void;
  close(): Promise<void>;
}

export interface FixtureOptions {
  /** A database of another server; else a new one on the shared test server. */
  readonly databaseUrl?: string;
  /** A NATS server that is there; else one of the fixture's own (the log's record has one fixed name in each). */
  readonly natsUrls?: { readonly operator: string; readonly capture: string };
}

export async function captureFixture(options: FixtureOptions = {}): Promise<CaptureFixture> {
  const cleanups: (() => Promise<unknown> | void)[] = [];
  const onClose = (cleanup: () => Promise<unknown> | void): void => void cleanups.push(cleanup);
  const close = async (): Promise<void> => {
    for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
  };
  try {
    return await assemble(options, onClose, close);
  } catch (error) {
    await close();
    throw error;
  }
}

async function assemble(options: FixtureOptions, onClose: CaptureFixture['onClose'], close: () => Promise<void>): Promise<CaptureFixture> {
  const databaseUrl = options.databaseUrl ?? (await ownDatabase(onClose));
  const urls = options.natsUrls ?? (await natsServer(onClose));
  const slot = `hw_${randomBytes(6).toString('hex')}`;
  const config = (env: Environment = {}): Config =>
    readConfig({ DATABASE_URL: databaseUrl, NATS_URL: urls.capture, HEADWATER_SLOT: slot, ...env });
  const nats = await connectNats(urls.operator, 'test', silentLogger());
  onClose(() => nats.close());
  const record = new LogRecord(await openBucket(nats, recordBucket(config()), 1));
  const connect = async (): Promise<PgClient> => {
    const client = await connectPostgres(databaseUrl, 'test application', silentLogger());
    onClose(() => client.end().catch(() => undefined));
    return client;
  };
  const sql = await connect();
  let opened: Promise<JetStreamLog> | undefined;
  const log = (): Promise<JetStreamLog> => {
    opened ??= openLog(nats, config(), onClose);
    // It may not be there yet.
    opened.catch(() => (opened = undefined));
    return opened;
  };
  const events = async (): Promise<StoredEvent[]> => readLog(await log());
  const start = (parts: StartOptions = {}): RunningCapture => startOne(config(parts.env), parts, onClose);
  return {
    databaseUrl,
    slot,
    natsUrls: urls,
    sql,
    nats,
    record,
    config,
    start,
    streaming: async (parts) => {
      const capture = start(parts);
      await Promise.race([capture.streaming, capture.done]);
      return capture;
    },
    log,
    events,
    settled: async (ms = 20_000) => {
      const marker = `settled ${randomBytes(6).toString('hex')}`;
      await sql.query(`SELECT pg_logical_emit_message(true, 'test.settled', $1)`, [marker]);
      await waitFor(await log(), (event) => event.content === marker, ms, 'what was committed before');
      return events();
    },
    copied: (table, ms = 20_000) => until(async () => (await record.copy(table))?.state === 'done', ms, `the copy of ${table}`),
    until: (condition, what, ms = 20_000) => until(condition, ms, what),
    query: async (statement, values = []) => (await sql.query<Record<string, unknown>>(statement, [...values])).rows,
    connect,
    onClose,
    close,
  };
}

async function ownDatabase(onClose: CaptureFixture['onClose']): Promise<string> {
  const database = await freshDatabase();
  onClose(() => database.drop());
  return database.url;
}

async function openLog(nats: NatsConnection, config: Config, onClose: CaptureFixture['onClose']): Promise<JetStreamLog> {
  const log = await JetStreamLog.open(nats, config, silentLogger());
  onClose(() => log.close());
  return log;
}

/** A NATS server with an empty store. */
async function natsServer(onClose: CaptureFixture['onClose']): Promise<NonNullable<LocalServices['nats']>> {
  const { services } = await ownServers({ nats: true }, onClose);
  return services.nats!;
}

/** Servers of a test's own, stopped and removed with it. */
export async function ownServers(
  need: { postgres?: boolean; nats?: boolean },
  onClose: CaptureFixture['onClose'],
): Promise<{ services: LocalServices; data: string }> {
  const data = temporaryDirectory();
  const services = await startLocalServices({
    data,
    need: { postgres: need.postgres ?? false, nats: need.nats ?? false, redis: false },
    install: true,
    log: silentLogger(),
  });
  onClose(async () => {
    await services.stop();
    await removeData(data);
  });
  return { services, data };
}

function startOne(
  config: Config,
  { catalog = defaultCatalog(), snapshot = true }: StartOptions,
  onClose: CaptureFixture['onClose'],
): RunningCapture {
  const lines: LogLine[] = [];
  const show = process.env['TEST_LOG_LEVEL'] !== undefined;
  const write = (line: string): void => {
    lines.push(JSON.parse(line) as LogLine);
    if (show) process.stderr.write(line);
  };
  const health = new Health();
  const context = {
    config,
    log: pino({ level: 'debug', base: null }, { write }),
    metrics: new Registry(),
    health,
    signal: new AbortController().signal,
  };
  const capture = startCapture(context, { catalog, snapshot });
  onClose(() => capture.stop());
  const { metrics } = context;
  return Object.assign(capture, {
    lines,
    health,
    metrics,
    said: (text: string) => lines.some((line) => JSON.stringify(line).includes(text)),
  });
}
