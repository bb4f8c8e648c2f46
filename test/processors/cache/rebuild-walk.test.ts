import { redisNamespace, type RedisNamespace } from '../../support/redis-namespace.ts';
import { Walk } from './support/rebuild-walk.ts';

const seed = Number(process.env['TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
const runs = Number(process.env['REBUILD_RUNS'] ?? 8);

describe('rebuild of a small cache, in whatever order things happen', function () {
  this.timeout(60_000 + runs * 5_000);
  let redis: RedisNamespace;
  before(async () => {
    redis = await redisNamespace();
  });
  after(() => redis.close());

  it(`shows readers what the log says, after a flip, from then on, and after the way back (TEST_SEED=${seed}, REBUILD_RUNS=${runs})`, async () => {
    for (let run = 0; run < runs; run++) {
      await redis.empty();
      await new Walk(redis, seed + run).run();
    }
  });
});
