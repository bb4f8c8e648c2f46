import { messageOf } from '../pipeline/runtime/errors.ts';
import { RedisKeys } from '../pipeline/runner/redis-keys.ts';
import type { RuleCondition } from '../schemas/condition/condition.ts';
import { printCondition } from '../schemas/condition/print.ts';
import { createChannels } from './notify/channels/create-channels.ts';
import { defaultOptions } from './notify/options.ts';
import { Notify } from './notify/role.ts';
import type { ProcessorFactory } from './processor-factory.ts';

/** Connections for planning, keeping outcomes and sweeping; attempts under way hold none. */
const connections = 8;

/**
 * Tells people about alerts by webhook, email and push: what the outbox says is planned into jobs, and these are delivered. It does
 * not read the log, and it does not wait for Redis.
 */
export const notify: ProcessorFactory = {
  name: 'notify',
  start({ config, log, ...context }, { postgres }) {
    const { endpoints } = defaultOptions;
    const options = {
      ...defaultOptions,
      perUserMinute: config.notifyPerMinute,
      endpoints: { ...endpoints, webhook: { ...endpoints.webhook, perSecond: config.notifyRate } },
    };
    const role = new Notify(
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
    return Promise.resolve(role);
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
