import { createPool } from '../../pipeline/clients/postgres.ts';
import { webhookChannel } from '../../processors/notify/channels/webhook.ts';
import { defaultOptions } from '../../processors/notify/options.ts';
import { Notify } from '../../processors/notify/role.ts';
import { roleContext } from './role-context.ts';

/** The role `notify` as a program of its own, which tests kill. */
const [databaseUrl, redisUrl, prefix, leaseMs] = process.argv.slice(2);
if (databaseUrl === undefined || redisUrl === undefined || prefix === undefined || leaseMs === undefined)
  throw new Error('usage: run-notify DATABASE_URL REDIS_URL PREFIX LEASE_MS');

const context = roleContext();
const role = new Notify(context, {
  pool: createPool(databaseUrl, 'test notify', context.log, 8),
  databaseUrl,
  redisUrl,
  prefix,
  channels: { webhook: webhookChannel({ rules: { allowPrivate: true }, userAgent: 'Headwater/test' }) },
  text: (condition) => JSON.stringify(condition),
  options: {
    ...defaultOptions,
    leaseMs: Number(leaseMs),
    sweepMs: 100,
    retryBaseMs: 50,
    breakerBaseMs: 100,
    breakerCapMs: 400,
    perUserMinute: 1_000_000,
    perRuleMinute: 1_000_000,
    endpoints: { ...defaultOptions.endpoints, webhook: { inFlight: 8, perSecond: 10_000 } },
  },
});
process.stdout.write('{"running":true}\n');
await role.done;
