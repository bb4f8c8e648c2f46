import { stopTestServers } from './servers.ts';

/**
 * Loaded by mocha before any test. What the developer's shell says of servers and settings must not reach the tests: they
 * run on servers of their own.
 */
for (const name of Object.keys(process.env)) {
  if (name.startsWith('HEADWATER_') || ['DATABASE_URL', 'NATS_URL', 'REDIS_URL'].includes(name)) delete process.env[name];
}

/** How long the process may stay alive after the last test before it is called a leak. */
const lingerMs = 10_000;

/** Runs once, after all tests. */
export async function mochaGlobalTeardown(): Promise<void> {
  await stopTestServers();
  const timer = setTimeout(() => {
    process.stderr.write(`tests left something open: ${[...new Set(process.getActiveResourcesInfo())].join(', ')}\n`);
    process.exit(1);
  }, lingerMs);
  // The timer alone does not keep the process alive: it fires only when something else does.
  timer.unref();
}
