// @ts-check
import { inRedis, parseEvent } from 'headwater/processor';

/**
 * How many liquidations each chain has had, in the hash `<prefix>:liquidation-counts` of Redis.
 * The effects of a batch: by chain, how many more.
 */
export const processor = inRedis({
  name: 'liquidation-counts',
  subjects: ['ev.public.liquidations.*'],
  redrive: { of: 'events' },
  keys: ['liquidation-counts'],

  /** @returns {Map<string, number>} */
  begin: () => new Map(),

  apply(event, counts) {
    const liquidation = parseEvent(event);
    if (!('op' in liquidation) || liquidation.op !== 'insert') return;
    const chain = liquidation.after?.['chain'];
    if (typeof chain !== 'string') throw new Error('a liquidation without chain');
    counts.set(chain, (counts.get(chain) ?? 0) + 1);
  },

  // Pairs of chain and number. `prefix` is the namespace: a rebuild fills another one beside.
  lua: `for i = first, #ARGV, 2 do redis.call('HINCRBY', prefix .. ':liquidation-counts', ARGV[i], ARGV[i + 1]) end`,
  encode: (counts) => [...counts].flat(),
});
