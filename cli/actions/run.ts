import type { Config } from '../../pipeline/runtime/config.ts';
import { usage } from '../../pipeline/runtime/errors.ts';
import { Health } from '../../pipeline/runtime/health.ts';
import { createLogger } from '../../pipeline/runtime/logging.ts';
import { createRegistry } from '../../pipeline/runtime/metrics.ts';
import type { ProcessorFactory } from '../../processors/processor-factory.ts';
import { suggestion } from '../../schemas/nearest.ts';
import { configOf, type Cli } from '../cli.ts';
import { locate } from '../connections.ts';
import { startAdminServer } from '../roles/admin-server.ts';
import { loadCatalog } from '../roles/catalog.ts';
import { allProcessors } from '../roles/own-processors.ts';
import { roleNames, startRoles, type NatsUrls } from '../roles/start-roles.ts';
import { aborted } from '../../pipeline/runtime/tasks.ts';

/** Runs roles until the signal, or until one of them fails. */
export async function run(cli: Cli, names: readonly string[], options: { snapshot: boolean; data?: string }): Promise<void> {
  const given = configOf(cli, { data: options.data });
  const all = await allProcessors(given);
  requireRoles(names, roleNames(all));
  await runRoles(cli, names, await locate(given, 'databaseUrl', 'natsUrl', 'redisUrl'), all, options.snapshot);
}

async function runRoles(
  cli: Cli,
  names: readonly string[],
  config: Config,
  all: readonly ProcessorFactory[],
  snapshot: boolean,
): Promise<void> {
  const log = createLogger(config.logLevel);
  const catalog = await loadCatalog(config);
  const [health, metrics] = [new Health(), createRegistry()];
  const admin = await startAdminServer(config, health, metrics);
  log.info(`health and metrics: ${admin.url}`);
  try {
    const roles = await startRoles(names, {
      config,
      natsUrls: sameUrl(config),
      catalog,
      processors: all,
      log,
      health,
      metrics,
      signal: cli.signal,
      snapshot,
    });
    try {
      await Promise.race([aborted(cli.signal), roles.failed]);
    } finally {
      await roles.stop();
    }
  } finally {
    await admin.close();
  }
}

/** One URL for all roles: whoever runs them apart gives each its own. */
export function sameUrl(config: Config): NatsUrls {
  const url = config.natsUrl!;
  return { capture: url, processor: url, gateway: url };
}

function requireRoles(names: readonly string[], known: readonly string[]): void {
  const faults = names.filter((name) => !known.includes(name)).map((name) => `'${name}' is not a role${suggestion(name, known)}`);
  if (faults.length > 0) throw usage('unknown_role', faults.join('\n'), `the roles are ${known.join(', ')}`);
}
