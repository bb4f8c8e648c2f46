import { expect } from 'chai';
import type { Role } from '../../../pipeline/runtime/lifecycle.ts';
import { captureFixture, type CaptureFixture } from '../../pipeline/capture/support/fixture.ts';
import { Random } from '../../pipeline/capture/support/random.ts';
import { redisDatabase, type RedisDatabase } from '../../support/redis-database.ts';
import { differences, expectedWindows } from './support/expected.ts';
import { startAggregates, untilFolded } from './support/running.ts';
import { storedWindows } from './support/stored-windows.ts';
import { crowdStatements, tradesCatalog, tradesChecks, tradesSchema, tradeStatements } from './support/trades.ts';

const seed = Number(process.env['TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31));

describe('aggregates of a database', function () {
  this.timeout(180_000);
  let fixture: CaptureFixture;
  let redis: RedisDatabase;
  let role: Role | undefined;
  beforeEach(async () => {
    fixture = await captureFixture();
    redis = await redisDatabase();
  });
  afterEach(async () => {
    await role?.stop();
    await redis.close();
    await fixture.close();
  });

  async function run(random: Random, transactions: number): Promise<void> {
    const crowdAt = random.int(0, transactions - 1);
    for (let n = 0; n < transactions; n++) {
      const statements = n === crowdAt ? crowdStatements(random) : tradeStatements(random);
      await fixture.sql.query(['BEGIN', ...statements, 'COMMIT'].join(';\n'));
    }
  }

  async function compare(): Promise<number> {
    const { seq } = (await fixture.settled()).at(-1)!;
    const checks = tradesChecks();
    await untilFolded(
      redis,
      checks.map(({ definition }) => definition),
      seq,
    );
    let windows = 0;
    for (const { definition, from, id } of checks) {
      const stored = await storedWindows(redis.client, definition);
      const expected = await expectedWindows(fixture.sql, definition, from, id);
      const lines = differences(stored, expected)
        .slice(0, 10)
        .map((line) => line.replaceAll(/(.)\1{9,}/g, '$1…'));
      expect(lines, `${definition.name} (seed ${seed})`).to.deep.equal([]);
      windows += expected.length;
    }
    return windows;
  }

  for (const [name, mostRecords] of [
    ['everything in memory', 200_000],
    ['next to nothing in memory', 40],
  ] as const)
    it(`are what SQL says, after a history at random, with ${name}`, async () => {
      const random = new Random(seed);
      for (const statement of tradesSchema) await fixture.sql.query(statement);
      await fixture.streaming({ catalog: tradesCatalog(), env: { HEADWATER_TICK: '200ms' } });
      await run(random, 300);
      role = startAggregates({ redis, eventLog: await fixture.log(), catalog: tradesCatalog(), mostRecords });
      // What was there, what came before it, and what comes while it works.
      await run(random, 300);
      const windows = await compare();
      await run(random, 100);
      await compare();
      process.stdout.write(`      seed ${seed}: ${windows} windows\n`);
    });
});
