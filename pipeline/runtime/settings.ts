import { bool, bytes, choice, count, duration, list, name, optional, path, port, text, url } from './setting-types.ts';

/**
 * Every setting: its variable, type, default and prose. This table is the one source of the configuration's types,
 * its validation, `headwater config` and docs/configuration.md.
 */
export const settings = {
  databaseUrl: {
    env: 'DATABASE_URL',
    type: optional(url('postgres', 'postgresql')),
    default: undefined,
    secret: true,
    help: 'PostgreSQL to capture. Unset: a local server is started.',
  },
  natsUrl: {
    env: 'NATS_URL',
    type: optional(url('nats', 'tls')),
    default: undefined,
    secret: true,
    help: 'NATS server with JetStream. Unset: a local server is started.',
  },
  redisUrl: {
    env: 'REDIS_URL',
    type: optional(url('redis', 'rediss')),
    default: undefined,
    secret: true,
    help: 'Redis. Unset: a local server is started.',
  },
  data: {
    env: 'HEADWATER_DATA',
    type: path,
    default: '.headwater',
    help: 'Directory of the local servers’ data, their logs and `run.json`.',
  },
  logLevel: {
    env: 'HEADWATER_LOG_LEVEL',
    type: choice('fatal', 'error', 'warn', 'info', 'debug', 'trace'),
    default: 'info',
    help: 'Lowest level that is logged, to stderr.',
  },
  host: { env: 'HEADWATER_HOST', type: text, default: '127.0.0.1', help: 'Address the gateway and the admin server listen on.' },
  port: {
    env: 'HEADWATER_PORT',
    type: port,
    default: 8080,
    help: 'Port of the gateway; 0 takes any free one. The default gives way to a free port when it is taken, a port that was asked for does not.',
  },
  adminPort: {
    env: 'HEADWATER_ADMIN_PORT',
    type: port,
    default: 9464,
    help: 'Port of `/livez`, `/readyz` and `/metrics`; the default gives way to a free port when it is taken.',
  },
  catalog: {
    env: 'HEADWATER_CATALOG',
    type: optional(path),
    default: undefined,
    help: 'The catalogue file. Unset: the DeFi catalogue for the local database, none for a database given by URL.',
  },
  stream: { env: 'HEADWATER_STREAM', type: name, default: 'EVENTS', help: 'JetStream stream that is the log.' },
  subject: { env: 'HEADWATER_SUBJECT', type: name, default: 'ev', help: 'First token of the log’s subjects.' },
  replicas: { env: 'HEADWATER_REPLICAS', type: choice('1', '3'), default: '1', help: 'Replicas of the streams.' },
  logMaxAge: {
    env: 'HEADWATER_LOG_MAX_AGE',
    type: optional(duration),
    default: undefined,
    help: 'Events older than this are trimmed. Unset: kept for ever.',
  },
  logMaxBytes: {
    env: 'HEADWATER_LOG_MAX_BYTES',
    type: optional(bytes),
    default: undefined,
    help: 'Size beyond which the oldest events are trimmed, at least 64 times the NATS server’s max_payload. Unset: unbounded.',
  },
  slot: { env: 'HEADWATER_SLOT', type: name, default: 'headwater', help: 'Replication slot.' },
  publication: {
    env: 'HEADWATER_PUBLICATION',
    type: name,
    default: 'headwater',
    help: 'Publication; a second one, `<name>_append`, holds the tables that are captured without identity.',
  },
  tick: {
    env: 'HEADWATER_TICK',
    type: duration,
    default: 1_000,
    help: 'How often the database’s clock is written to the log. 0: only a heartbeat every 10 s or 16 MB of WAL.',
  },
  snapshotMax: {
    env: 'HEADWATER_SNAPSHOT_MAX',
    type: bytes,
    default: 1024 ** 3,
    help: 'Tables up to this size are copied before streaming begins, larger ones by backfill while streaming; those are cached only if the catalogue says cache: true.',
  },
  backfillChunk: { env: 'HEADWATER_BACKFILL_CHUNK', type: count(1, 100_000), default: 5_000, help: 'Rows of one backfill chunk.' },
  recentWindow: {
    env: 'HEADWATER_RECENT_WINDOW',
    type: bytes,
    default: 64 * 1024 ** 2,
    help: 'Bytes of the newest events that a gateway keeps in memory for replays.',
  },
  replayReaders: {
    env: 'HEADWATER_REPLAY_READERS',
    type: count(1, 256),
    default: 8,
    help: 'Replays older than the recent window that a gateway serves at once.',
  },
  origins: { env: 'HEADWATER_ORIGINS', type: list, default: [], help: 'Origins browsers may connect from, comma-separated; empty: any.' },
  trustedProxies: {
    env: 'HEADWATER_TRUSTED_PROXIES',
    type: list,
    default: [],
    help: 'Addresses or ranges of proxies whose X-Forwarded-For counts.',
  },
  drain: {
    env: 'HEADWATER_DRAIN',
    type: duration,
    default: 10_000,
    help: 'Time over which a stopping gateway spreads the closing of its connections.',
  },
  limitConnections: { env: 'HEADWATER_LIMIT_CONNECTIONS', type: count(1, 1_000_000), default: 100, help: 'Connections of one key.' },
  limitSubscriptions: {
    env: 'HEADWATER_LIMIT_SUBSCRIPTIONS',
    type: count(1, 1_000_000),
    default: 100,
    help: 'Subscriptions of one connection.',
  },
  limitFilterValues: { env: 'HEADWATER_LIMIT_FILTER_VALUES', type: count(1, 1_000_000), default: 500, help: 'Values in one filter.' },
  limitCommands: { env: 'HEADWATER_LIMIT_COMMANDS', type: count(1, 1_000_000), default: 20, help: 'Commands a second of one key.' },
  limitCommandsBurst: {
    env: 'HEADWATER_LIMIT_COMMANDS_BURST',
    type: count(1, 1_000_000),
    default: 200,
    help: 'Commands that may come at once.',
  },
  limitConnects: {
    env: 'HEADWATER_LIMIT_CONNECTS',
    type: count(1, 1_000_000),
    default: 20,
    help: 'New connections a second from one address.',
  },
  demoRate: { env: 'HEADWATER_DEMO_RATE', type: count(1, 100_000), default: 50, help: 'Rows a second that the demo market writes.' },
  installMissing: { env: 'HEADWATER_INSTALL', type: bool, default: true, help: 'Whether `up` may install servers that are missing.' },
} as const;

export type Settings = typeof settings;
export type SettingName = keyof Settings;
