import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import type { RedisClient } from '../../pipeline/clients/redis.ts';
import { rebuildable } from '../../pipeline/runner/rebuild/rebuild.ts';
import type { Comparison } from '../../pipeline/runner/rebuild/model.ts';
import { redisBeside } from '../../pipeline/runner/rebuild/redis.ts';
import { RedisStateStore, type RedisEffects } from '../../pipeline/runner/redis-state-store.ts';
import { startRunner } from '../../pipeline/runner/runner.ts';
import type { Processor } from '../../pipeline/runner/processor.ts';
import type { Role } from '../../pipeline/runtime/lifecycle.ts';
import { MemoryLog } from '../support/memory-log.ts';
import { redisNamespace, type RedisNamespace } from '../support/redis-namespace.ts';
import { roleContext, until } from '../support/role-context.ts';
import { tickEvent } from '../support/row-events.ts';
import { unsteered } from '../support/unsteered.ts';

type Counts = Map<string, number>;
const noLetters = { publish: () => Promise.reject(new Error('no event of this test is poison')) };

/** Counts the events of each subject, in a key for each. */
const counter = (): Processor<Counts> => ({
  name: 'counter',
  begin: () => new Map(),
  apply: ({ subject }, counts) => void counts.set(subject, (counts.get(subject) ?? 0) + 1),
});

const effects: RedisEffects<Counts> = {
  lua: `for n = first, #ARGV, 2 do redis.call('INCRBY', prefix .. ':counts:' .. ARGV[n], ARGV[n + 1]) end`,
  encode: (counts) => [...counts].flat(),
};

/** KEYS: one; ARGV: its kind, and its last item, or '' for all that come before that. */
const fillLarge = `
local key, kind = KEYS[1], ARGV[1]
local function add(n, item)
  if kind == 'hash' then redis.call('HSET', key, 'field ' .. n, item) end
  if kind == 'set' then redis.call('SADD', key, item) end
  if kind == 'zset' then redis.call('ZADD', key, n / 7, item) end
  if kind == 'list' then redis.call('RPUSH', key, item) end
  if kind == 'stream' then redis.call('XADD', key, n .. '-1', 'item', item) end
  if kind == 'string' then redis.call('APPEND', key, string.rep(item, 10)) end
end
if ARGV[2] == '' then
  for n = 1, 12000 do add(n, 'item ' .. n) end
else
  add(12001, ARGV[2])
end`;

describe('comparison of two states in Redis', () => {
  let redis: RedisNamespace;
  let log: MemoryLog;
  let stop: AbortController;
  before(async () => {
    redis = await redisNamespace();
  });
  beforeEach(async () => {
    await redis.empty();
    log = new MemoryLog();
    stop = new AbortController();
  });
  afterEach(() => stop.abort());
  after(() => redis.close());

  const append = (subjects: readonly string[]): Promise<number> =>
    log.append(
      subjects.map((subject, n) => ({ subject, data: tickEvent(log.head + 1 + n).data })),
      log.head,
    );
  const names = (count: number): string[] => Array.from({ length: count }, (_, n) => `s${n}`);
  const beside = (client: RedisClient = redis.client): ReturnType<typeof redisBeside<Counts>> =>
    redisBeside({ client, processor: 'counter', keys: redis.keys, effects, patterns: ['counts:*'] });
  const liveStore = (): RedisStateStore<Counts> => new RedisStateStore(redis.client, 'counter', redis.keys, effects);

  async function startLive(limits = {}): Promise<Role> {
    const store = liveStore();
    const parts = { eventLog: log, deadLetters: noLetters, store, processor: counter(), limits };
    const role = startRunner(roleContext(stop.signal), parts);
    await until(async () => (await store.offset())?.seq === log.head);
    return role;
  }

  async function rebuild(): Promise<Comparison> {
    const parts = { eventLog: log, deadLetters: noLetters, processor: counter(), beside: beside() };
    const { flipped, comparison } = await rebuildable(roleContext(stop.signal), parts).rebuild({ flip: true });
    expect(flipped).to.equal(true);
    return comparison;
  }

  it('is made with a live one that has stopped, and says so', async () => {
    await append(names(1_000));
    await (await startLive()).stop();
    await redis.client.set(`${redis.keys.prefix}:counts:s5`, 999);
    await redis.client.set(`${redis.keys.prefix}:counts:ghost`, 1);
    await append(['new']);
    const { listed, apart, ...counts } = await rebuild();
    expect(counts).to.deep.equal({ compared: 1_002, differences: 3, moving: 0 });
    expect(listed.map(({ what }) => what)).to.have.members(['counts:s5', 'counts:ghost', 'counts:new']);
    expect(apart).to.match(/stands still at 1000/);
  });

  it('is made with a live one that has not begun', async () => {
    await append(names(300));
    const { compared, differences, moving, apart } = await rebuild();
    expect({ compared, differences, moving }).to.deep.equal({ compared: 300, differences: 300, moving: 0 });
    expect(apart).to.match(/has not begun/);
  });

  it('meets a live one that is always on the move, key after key', async () => {
    await append(names(2_000));
    const role = await startLive({ events: 3 });
    let done = false;
    const load = (async () => {
      for (let n = 0; !done; n++) {
        await append(names(2_000).slice((n * 7) % 1_900, ((n * 7) % 1_900) + 7));
        await sleep(15);
      }
    })();
    try {
      const { compared, ...rest } = await rebuild();
      expect(compared).to.be.at.least(2_000);
      expect(rest).to.deep.equal({ differences: 0, listed: [], moving: 0 });
    } finally {
      done = true;
      await load;
      await role.stop();
    }
  });

  it('comes to an end where the two never meet, and counts what it could not judge', async () => {
    await append(names(2_000));
    await (await startLive()).stop();
    await rebuildable(roleContext(stop.signal), {
      eventLog: log,
      deadLetters: noLetters,
      processor: counter(),
      beside: beside(),
    }).rebuild({ flip: false });
    await redis.client.set(`${redis.keys.prefix}:counts:s5`, 999);
    // A live one that runs ahead all the while, of a fold that does not come after it.
    const offset = redis.keys.offset('counter');
    const running = setInterval(() => void redis.client.hincrby(offset, 'seq', 1).catch(() => undefined), 2);
    try {
      await redis.client.hincrby(offset, 'seq', 1);
      const begun = performance.now();
      const { compared, differences, moving } = await beside().compare(unsteered(stop.signal));
      expect({ compared, differences, moving }).to.deep.equal({ compared: 1_999, differences: 0, moving: 1 });
      expect(performance.now() - begun).to.be.lessThan(20_000);
    } finally {
      clearInterval(running);
    }
  });

  it('compares what is large in parts, to its last item', async () => {
    const { client, keys } = redis;
    await append(['a']);
    await (await startLive()).stop();
    const parts = { eventLog: log, deadLetters: noLetters, processor: counter(), beside: beside() };
    await rebuildable(roleContext(stop.signal), parts).rebuild({ flip: false });
    const kinds = ['hash', 'set', 'zset', 'list', 'string', 'stream'];
    for (const kind of kinds) {
      const begun = `${keys.prefix}:${kind}`;
      await client.eval(fillLarge, 1, begun, kind, '');
      for (const name of [`${kind}-same`, `${kind}-other`]) {
        for (const prefix of [keys.prefix, `${keys.prefix}:rebuild:counter`]) {
          const key = `${prefix}:counts:${name}`;
          await client.copy(begun, key);
          await client.eval(fillLarge, 1, key, kind, prefix === keys.prefix || name.endsWith('same') ? 'last' : 'lost');
        }
      }
    }
    let calls = 0;
    const counting = new Proxy(client, {
      get(target, name) {
        const found: unknown = Reflect.get(target, name);
        if (name === 'callBuffer') calls++;
        return typeof found === 'function' ? (found.bind(target) as unknown) : found;
      },
    });
    const { listed, ...counts } = await beside(counting).compare(unsteered(stop.signal));
    expect(counts).to.deep.equal({ compared: 13, differences: 6, moving: 0 });
    expect(listed.map(({ what }) => what)).to.have.members(kinds.map((kind) => `counts:${kind}-other`));
    // 12,000 items of each key, and no call looks at more than some 10,000.
    expect(calls).to.be.at.least(kinds.length * 2);
  });
});
