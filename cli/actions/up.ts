import { startDemo } from '../../deploy/demo/demo.ts';
import { startLocalServices, type LocalServices } from '../../deploy/local/services.ts';
import { migrate } from '../../deploy/migrate.ts';
import { withLocal, type Config } from '../../pipeline/runtime/config.ts';
import { refused } from '../../pipeline/runtime/errors.ts';
import { Health } from '../../pipeline/runtime/health.ts';
import type { Role } from '../../pipeline/runtime/lifecycle.ts';
import { createLogger, type Logger } from '../../pipeline/runtime/logging.ts';
import { createRegistry } from '../../pipeline/runtime/metrics.ts';
import { untilItWorks } from '../../pipeline/runtime/backoff.ts';
import { configOf, type Cli } from '../cli.ts';
import { operatorKey } from '../operator-key.ts';
import { startAdminServer } from '../roles/admin-server.ts';
import { loadCatalog } from '../roles/catalog.ts';
import { allProcessors } from '../roles/own-processors.ts';
import { roleNames, startRoles, type NatsUrls, type RunningRoles } from '../roles/start-roles.ts';
import { removeRunFile, writeRunFile, type RunFile } from '../run-file.ts';
import { aborted } from '../../pipeline/runtime/tasks.ts';
import { banner } from '../banner.ts';
import { sameUrl } from './run.ts';

interface UpOptions {
  readonly demo?: boolean;
  readonly snapshot: boolean;
  readonly json?: boolean;
  readonly port?: number;
  readonly data?: string;
  readonly rate?: number;
}

/** Starts everything, and runs until the signal or a fault. */
export async function up(cli: Cli, options: UpOptions): Promise<void> {
  const config = configOf(cli, { port: options.port, data: options.data, demoRate: options.rate });
  if (options.demo && config.databaseUrl !== undefined)
    throw refused(
      'demo_elsewhere',
      'the demo market would write into the database of DATABASE_URL',
      'leave out --demo, or unset DATABASE_URL to have a local database',
    );
  await onServers(cli, config, { ...options, demo: options.demo ?? true });
}

async function onServers(cli: Cli, config: Config, options: UpOptions): Promise<void> {
  const log = createLogger(config.logLevel);
  const need = { postgres: config.databaseUrl === undefined, nats: config.natsUrl === undefined, redis: config.redisUrl === undefined };
  const services = await startLocalServices({ data: config.data, need, install: config.installMissing, log, signal: cli.signal });
  try {
    await serve(cli, withLocal(config, { ...localUrls(services), ...pushKeys(config, services) }), services, options, log);
  } finally {
    await removeRunFile(config.data);
    await services.stop();
    if (!need.postgres)
      log.warn(`the replication slot "${config.slot}" remains on the database and makes it keep WAL; remove it with: headwater detach`);
  }
}

/** The kept keys of web push, unless others are set. */
function pushKeys(config: Config, { vapid }: LocalServices): { vapidPublicKey?: string; vapidPrivateKey?: string } {
  const set = config.vapidPublicKey !== undefined || config.vapidPrivateKey !== undefined;
  return set ? {} : { vapidPublicKey: vapid.publicKey, vapidPrivateKey: vapid.privateKey };
}

function localUrls({ databaseUrl, nats, redisUrl }: LocalServices): { databaseUrl?: string; natsUrl?: string; redisUrl?: string } {
  return { ...(databaseUrl ? { databaseUrl } : {}), ...(nats ? { natsUrl: nats.operator } : {}), ...(redisUrl ? { redisUrl } : {}) };
}

/** Everything on top of the servers, until a signal, a role or a server ends it. */
async function serve(cli: Cli, config: Config, services: LocalServices, options: UpOptions, log: Logger): Promise<void> {
  const { signal } = cli;
  const local = services.databaseUrl !== undefined;
  const [health, metrics] = [new Health(), createRegistry()];
  const [catalog, processors] = [await loadCatalog(config), await allProcessors(config)];
  await untilItWorks('PostgreSQL', () => migrate(config.databaseUrl!, { demo: local, log }), { signal, log });
  const key = await operatorKey(config, log);
  const natsUrls: NatsUrls = services.nats ?? sameUrl(config);
  const admin = await startAdminServer(config, health, metrics);
  let roles: RunningRoles | undefined;
  let demo: Role | undefined;
  try {
    roles = await startRoles(roleNames(processors), {
      config,
      natsUrls,
      catalog,
      processors,
      log,
      health,
      metrics,
      signal,
      snapshot: options.snapshot,
    });
    const faults = Promise.race([roles.failed, serverFault(services)]);
    const gateway = roles.gateway!;
    await Promise.race([Promise.all([gateway.ready, roles.capture!.streaming]), faults, aborted(signal)]);
    if (signal.aborted) return;
    const run: RunFile = {
      gateway: gateway.url,
      databaseUrl: config.databaseUrl!,
      natsUrl: config.natsUrl!,
      redisUrl: config.redisUrl!,
      key,
    };
    await writeRunFile(config.data, run);
    if (options.demo && local)
      demo = await startDemo({ url: config.databaseUrl!, rate: config.demoRate, log: log.child({ role: 'demo' }), signal });
    await (options.json
      ? cli.out.line(JSON.stringify(run))
      : cli.out.write(banner(cli.out, run, { admin: admin.url, catalog, demo: demo !== undefined })));
    await Promise.race([aborted(signal), faults]);
    log.info('stopping');
  } finally {
    await demo?.stop();
    await roles?.stop();
    await admin.close();
  }
}

async function serverFault(services: LocalServices): Promise<never> {
  throw await services.failed;
}
