import { expect } from 'chai';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Role } from '../../../pipeline/runtime/lifecycle.ts';
import { definitionsOf } from '../../../processors/aggregates/definition.ts';
import type { EngineMeta } from '../../../processors/aggregates/engine/effects.ts';
import type { Definition } from '../../../processors/aggregates/model.ts';
import { AggregateReader } from '../../../processors/aggregates/read/reader.ts';
import { aggregateKeys, namespaceOf } from '../../../processors/aggregates/store/keys.ts';
import { Registry } from '../../../processors/aggregates/store/registry.ts';
import { parseCatalog } from '../../../schemas/catalog-file.ts';
import { captureFixture, type CaptureFixture } from '../../pipeline/capture/support/fixture.ts';
import { Random } from '../../pipeline/capture/support/random.ts';
import { redisDatabase, type RedisDatabase } from '../../support/redis-database.ts';
import { until } from '../../support/role-context.ts';
import { temporaryDirectory } from '../../support/servers.ts';
import { differences, expectedWindows } from './support/expected.ts';
import { startAggregates, untilFolded } from './support/running.ts';
import { storedWindows } from './support/stored-windows.ts';
import { tradesSchema, tradeStatements } from './support/trades.ts';

const seed = Number(process.env['TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31));

const long = '{ 1m: 4d, 1h: 4d, 1d: 9d }';
const short = '{ 1m: 1h, 1h: 5h, 1d: 1d }';
const yaml = (retention: string): string => `aggregates:
  rows: { table: public.trades, by: [pair], value: price, time: traded_at, of: rows, windows: [1m, 1h, 1d], retention: ${retention}, functions: [count, open, high, low, close, p50] }
  changes: { table: public.trades, by: [pair], value: price, time: traded_at, of: changes, windows: [1m, 1h, 1d], retention: ${retention}, functions: [count, high, low] }
others: true
exclude: [public.trade_history]
`;
const catalogOf = (retention: string) => parseCatalog(yaml(retention), 'trades.yaml');

describe('aggregates of a database, kept for less, then for longer while they work', function () {
  this.timeout(180_000);
  let fixture: CaptureFixture;
  let redis: RedisDatabase;
  let directory: string;
  let role: Role | undefined;
  beforeEach(async () => {
    directory = temporaryDirectory();
    fixture = await captureFixture();
    redis = await redisDatabase();
  });
  afterEach(async () => {
    await role?.stop();
    await redis.close();
    await fixture.close();
    rmSync(directory, { recursive: true });
  });

  const definitions = (retention: string): readonly Definition[] => [...definitionsOf(catalogOf(retention)).values()];
  /** By level, the oldest window that is kept. */
  const oldestOf = async ({ name, hash }: Definition): Promise<readonly number[]> =>
    (JSON.parse((await redis.client.get(aggregateKeys.meta(namespaceOf(name, hash).prefix)))!) as EngineMeta).oldest;

  async function run(random: Random, transactions: number): Promise<void> {
    for (let n = 0; n < transactions; n++) {
      // A truncate would have everything begin anew.
      const statements = tradeStatements(random).filter((statement) => !statement.startsWith('TRUNCATE'));
      await fixture.sql.query(['BEGIN', ...statements, 'COMMIT'].join(';\n'));
    }
  }

  /** Waits until everything is folded and what is old is gone; then all that is stored has to be what SQL says of it. Returns how many windows that are. */
  async function compare(retention: string): Promise<number> {
    const { seq } = (await fixture.settled()).at(-1)!;
    await untilFolded(redis, definitions(retention), seq);
    let windows = 0;
    for (const definition of definitions(retention)) {
      const [from, id] = definition.of === 'rows' ? ['SELECT * FROM trades', 'ROW(id, part)'] : ['SELECT * FROM trade_history', 'n'];
      const expected = await expectedWindows(fixture.sql, definition, from, id);
      let lines: readonly string[] = [];
      let kept = expected;
      // The clock goes on meanwhile, and windows go bit by bit.
      await until(async () => {
        const stored = await storedWindows(redis.client, definition);
        const oldest = await oldestOf(definition);
        const isKept = ({ level, index }: { readonly level: string; readonly index: number }): boolean =>
          index >= oldest[definition.levels.findIndex(({ text }) => text === level)]!;
        kept = expected.filter(isKept);
        lines = differences(stored, kept);
        return lines.length === 0;
      }, 20_000).catch(() => expect(lines.slice(0, 10), `${definition.name} (seed ${seed})`).to.deep.equal([]));
      windows += kept.length;
      await compareShown(definition, expected);
    }
    return windows;
  }

  /** What readers are shown has to be whole, too. */
  async function compareShown(definition: Definition, expected: Awaited<ReturnType<typeof expectedWindows>>): Promise<void> {
    const reader = new AggregateReader(redis.client);
    const counts = new Map(expected.map(({ level, group, index, count }) => [`${level} ${group} ${index}`, count]));
    for (const group of new Set(expected.map((window) => window.group)))
      for (const window of definition.levels) {
        const page = await reader.use(definition.name, (view) =>
          view.series({
            groups: [group],
            size: { window: view.definition.levels.find(({ text }) => text === window.text)! },
            from: undefined,
            to: undefined,
            limit: 1_000,
          }),
        );
        for (const { start, item } of page!.items) {
          const name = `${window.text} ${group} ${start / window.micros}`;
          expect(item.count, `${definition.name} ${name} (seed ${seed})`).to.equal(counts.get(name));
        }
      }
  }

  it('hold and show no window that is there in part', async () => {
    const random = new Random(seed);
    const file = join(directory, 'catalog.yaml');
    writeFileSync(file, yaml(long));
    for (const statement of tradesSchema) await fixture.sql.query(statement);
    await fixture.streaming({ catalog: catalogOf(long), env: { HEADWATER_TICK: '100ms' } });
    role = startAggregates({ redis, eventLog: await fixture.log(), catalog: catalogOf(long), file, mostRecords: 200 });
    await run(random, 200);
    const all = await compare(long);
    const keep = async (retention: string): Promise<void> => {
      const text = JSON.stringify(definitions(retention)[0]!.levels);
      writeFileSync(file, yaml(retention));
      await until(async () => JSON.stringify((await new Registry(redis.client).entries()).get('rows')?.definition.levels) === text);
    };
    const before = await oldestOf(definitions(long)[0]!);
    // Each while rows come in, late ones among them.
    const writing = run(random, 150);
    await keep(short);
    await writing;
    const fewer = await compare(short);
    const lowered = await oldestOf(definitions(long)[0]!);
    expect(fewer).to.be.lessThan(all);
    expect(lowered.every((index, level) => index > before[level]!)).to.equal(true);
    const more = run(random, 150);
    await keep(long);
    await more;
    await compare(long);
    const raised = await oldestOf(definitions(long)[0]!);
    expect(raised.every((index, level) => index >= lowered[level]!)).to.equal(true);
    process.stdout.write(`      seed ${seed}: ${all} windows, then ${fewer}\n`);
  });
});
