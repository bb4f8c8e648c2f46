import { messageOf } from '../pipeline/runtime/errors.ts';
import { RedisKeys } from '../pipeline/runner/redis-keys.ts';
import type { RuleCondition } from '../schemas/condition/condition.ts';
import { printCondition } from '../schemas/condition/print.ts';
import { defaultOptions } from './notify/options.ts';
import type { ProcessorFactory } from './processor-factory.ts';

/** Connections for planning, keeping outcomes and sweeping; attempts under way hold none. */
const connections = 8;

/**
 * Tells people about alerts by webhook, email and push: what the outbox says is planned into jobs, and these are delivered. It does
 * not read the log, and it does not wait for Redis.
 */
export const notify: ProcessorFactory = {
  name: 'notify',
  async start({ config, log, ...context }, { postgres }) {
    // Queues, mail and push are many libraries, which nobody needs who only has processors listed.
    const [{ Notify }, { createChannels }] = await Promise.all([
      import('./notify/role.ts'),
      import('./notify/channels/create-channels.ts'),
    ]);
    const { endpoints } = defaultOptions;
    const options = {
      ...defaultOptions,
      perUserMinute: config.notifyPerMinute,
      endpoints: { ...endpoints, webhook: { ...endpoints.webhook, perSecond: config.notifyRate } },
    };
    return new Notify(
      { config, log, ...context },
      {
        pool: postgres(connections),
        databaseUrl: config.databaseUrl!,
        redisUrl: config.redisUrl!,
        prefix: `${new RedisKeys().prefix}:bull`,
        channels: createChannels(config, log),
        text: (condition) => conditionText(condition),
        options,
      },
    );
  },
};

/** A condition that cannot be printed must not keep people from hearing of the alert. */
function conditionText(condition: RuleCondition): string {
  try {
    return printCondition(condition);
  } catch (error) {
    return `(${messageOf(error)})`;
  }
}
