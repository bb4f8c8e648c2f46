import { expect } from 'chai';
import { once } from 'node:events';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { jetstreamManager } from '../../pipeline/clients/nats.ts';
import type { CopyState } from '../../pipeline/capture/log-record.ts';
import { pause } from '../../pipeline/runtime/backoff.ts';
import { definitionsOf } from '../../processors/aggregates/definition.ts';
import { aggregateKeys, namespaceOf } from '../../processors/aggregates/store/keys.ts';
import { Registry } from '../../processors/aggregates/store/registry.ts';
import { RedisRows } from '../../processors/cache/redis-rows.ts';
import { parseCatalog } from '../../schemas/catalog-file.ts';
import { runCli, startCli } from '../cli/support/run-cli.ts';
import { captureFixture, type CaptureFixture } from '../pipeline/capture/support/fixture.ts';
import { Random } from '../pipeline/capture/support/random.ts';
import { trimLog } from '../pipeline/log/support/fresh-log.ts';
import { differences, expectedWindows } from '../processors/aggregates/support/expected.ts';
import { storedWindows } from '../processors/aggregates/support/stored-windows.ts';
import { Instances } from '../support/instances.ts';
import { redisDatabase, type RedisDatabase } from '../support/redis-database.ts';
import { temporaryDirectory } from '../support/servers.ts';

const seed = Number(process.env['TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
const rows = 3_000;
const patienceMs = 120_000;
const yaml = `aggregates:
  price: { table: public.prices, by: [chain], value: price, time: made_at, of: rows, windows: [1h, 1d], functions: [count, sum, min, max, p50] }
others: true
`;
const catalog = parseCatalog(yaml, 'prices.yaml');
const price = definitionsOf(catalog).get('price')!;

describe('rebuild over a log that has been trimmed', function () {
  this.timeout(400_000);
  const random = new Random(seed);
  const directory = temporaryDirectory();
  let fixture: CaptureFixture;
  let redis: RedisDatabase;
  let env: Record<string, string>;
  let roles: Record<'capture' | 'cache' | 'aggregates', Instances>;
  let stopLoad: () => Promise<void>;

  before(async () => {
    fixture = await captureFixture();
    redis = await redisDatabase(8);
    await fixture.query('CREATE TABLE prices (id int PRIMARY KEY, chain text, price numeric, made_at timestamptz)');
    await fixture.query(
      `INSERT INTO prices SELECT i, 'c' || i % 7, i % 101 * 1.5, now() - i % 3000 * interval '1 minute' FROM generate_series(1, ${rows}) i`,
    );
    writeFileSync(join(directory, 'catalog.yaml'), yaml);
    env = {
      DATABASE_URL: fixture.databaseUrl,
      NATS_URL: fixture.natsUrls.operator,
      REDIS_URL: redis.url,
      HEADWATER_SLOT: fixture.slot,
      HEADWATER_CATALOG: join(directory, 'catalog.yaml'),
      HEADWATER_TICK: '200ms',
      HEADWATER_BACKFILL_CHUNK: '250',
    };
    roles = {
      capture: new Instances('capture', { ...env, NATS_URL: fixture.natsUrls.capture }),
      cache: new Instances('cache', env),
      aggregates: new Instances('aggregates', env),
    };
    roles.capture.start();
    await fixture.copied('public.prices', patienceMs);
    roles.cache.start();
    roles.aggregates.start();
    stopLoad = await load();
    await caughtUp();
    const log = await fixture.log();
    await trimLog(await jetstreamManager(fixture.nats), log, 'EVENTS', (await log.bounds()).last - 3);
  });
  after(async () => {
    await stopLoad?.();
    for (const role of Object.values(roles ?? {})) await role.killAll();
    await redis?.close();
    await fixture?.close();
    rmSync(directory, { recursive: true, force: true });
  });

  /** Of the next change. */
  let n = 1;

  /** Changes some rows all the time; most are never changed. */
  async function load(): Promise<() => Promise<void>> {
    const client = await fixture.connect();
    const stopping = new AbortController();
    const ended = (async () => {
      for (; !stopping.signal.aborted; n++) {
        const id = random.int(1, 200);
        await client.query(
          random.pick([
            `UPDATE prices SET price = ${n} WHERE id = ${id}`,
            `UPDATE prices SET chain = 'c${n % 9}' WHERE id = ${id}`,
            `DELETE FROM prices WHERE id = ${id}`,
            `INSERT INTO prices VALUES (${rows + n}, 'new', 1, now())`,
          ]),
        );
        await pause(10, stopping.signal);
      }
    })();
    return async () => {
      stopping.abort();
      await ended;
    };
  }

  /** Both states have come to now. */
  async function caughtUp(): Promise<void> {
    const { seq } = (await fixture.settled(patienceMs)).at(-1)!;
    await fixture.until(
      async () => {
        const { hash } = (await new Registry(redis.client).entries()).get('price') ?? price;
        const keys = ['{hw}:offset:cache', namespaceOf('price', hash).offset('aggregates')];
        const seqs = await Promise.all(keys.map((key) => redis.client.hget(key, 'seq')));
        for (const role of Object.values(roles)) role.check();
        return seqs.every((at) => Number(at ?? 0) >= seq);
      },
      `${seq} in both states`,
      patienceMs,
    );
  }

  const copy = (): Promise<CopyState | undefined> => fixture.record.copy('public.prices');
  const copying = (): Promise<void> =>
    fixture.until(async () => (await copy())?.state === 'running' && (await copy())!.rows > rows / 10, 'a copy on its way', patienceMs);

  /** Starts a command, kills it when it has said something and come somewhere. As if its leases had lapsed. */
  async function killed(args: readonly string[], words: readonly string[], until: () => Promise<unknown>): Promise<void> {
    const child = startCli(args, env);
    let said = '';
    for (const stream of [child.stdout!, child.stderr!]) stream.setEncoding('utf8').on('data', (text: string) => (said += text));
    const has = (): boolean => words.every((word) => said.includes(word));
    await fixture.until(() => has() || child.exitCode !== null, 'what it has to say', patienceMs);
    expect(has(), said).to.equal(true);
    await until();
    expect(child.exitCode, said).to.equal(null);
    child.kill('SIGKILL');
    await once(child, 'close');
    for (const key of await redis.client.keys('{hw}:*:lease:*'))
      if (/^(rebuild|remove):/.test((await redis.client.get(key)) ?? '')) await redis.client.del(key);
  }

  const told = (name: string): readonly string[] => [
    `${name}: the log no longer holds what was before`,
    `${name}: starting from a backfill of every table.`,
  ];

  async function killCapture(): Promise<void> {
    await roles.capture.kill(roles.capture.running[0]!);
    roles.capture.start();
  }

  it('goes on with a backfill whose command was killed, and can be watched again', async () => {
    await killed(['backfill', 'prices'], [], copying);
    const before = (await copy())!.rows;
    await fixture.until(async () => (await copy())!.rows > before, 'the copy to go on');
    const { code, stdout, stderr } = await runCli(['backfill', 'prices', '--json'], env);
    expect(code, stderr).to.equal(0);
    const { tables } = JSON.parse(stdout) as { tables: CopyState[] };
    expect(tables).to.have.length(1);
    expect(tables[0]).to.include({ table: 'public.prices', state: 'done' });
    // One copy, not two: what the second command watched is what the first had asked for.
    expect(tables[0]!.rows).to.be.within(rows - 200, rows * 1.2);
  });

  it('makes a cache that has every row, capture killed in the backfill, and the command in the fill', async () => {
    const log = await fixture.log();
    await trimLog(await jetstreamManager(fixture.nats), log, 'EVENTS', (await log.bounds()).last - 3);
    const spoiled = Array.from({ length: 50 }, (_, i) => `{hw}:row:public.prices:${1_000 + i}`);
    for (const key of spoiled)
      await redis.client.hset(key, 'event', (await redis.client.hget(key, 'event'))!.replace(/"price":"[^"]*"/, '"price":"-1"'));

    const filling = async (): Promise<boolean> => Number((await redis.client.hget('{hw}:rebuild:cache:offset:cache', 'seq')) ?? 0) > 0;
    // Capture is killed in the copy that the command waits for.
    await killed(['rebuild', 'cache', '--no-flip'], told('cache'), async () => {
      await killCapture();
      await fixture.until(filling, 'a cache that is filled', patienceMs);
    });
    const last = await runCli(['rebuild', 'cache'], env);
    expect(last.code, last.stderr).to.equal(0);
    expect(last.stdout).to.include('It is live now');
    // What is filled already needs no backfill.
    expect(last.stderr).to.not.include('starting from a backfill');

    await stopLoad();
    await caughtUp();
    const held = new Map<number, string>();
    for await (const page of new RedisRows(redis.client, catalog).rows('public.prices'))
      for (const { event } of page) {
        const { after } = JSON.parse(Buffer.from(event).toString()) as { after: { id: number; chain: string; price: string } };
        held.set(after.id, `${after.chain} ${after.price}`);
      }
    const table = await fixture.query('SELECT id, chain, price::text FROM prices');
    const wrong = table.filter(({ id, chain, price: value }) => held.get(Number(id)) !== `${String(chain)} ${String(value)}`);
    expect(wrong.slice(0, 3), `of ${table.length} rows`).to.deep.equal([]);
    expect(held.size).to.equal(table.length);
    // Snapshots are taken of it as of one that has seen the whole log.
    expect(await redis.client.hget('{hw}:offset:cache', 'from')).to.equal(String((await log.bounds()).epochStart));
    expect((await runCli(['rebuild', 'cache', '--drop'], env)).code).to.equal(0);
    expect(await redis.client.keys('{hw}:rebuild:*')).to.deep.equal([]);
  });

  it('makes windows over rows that are what SQL says, killed in the backfill', async () => {
    stopLoad = await load();
    const { prefix } = namespaceOf('price', price.hash);
    const groups = await redis.client.zrange(aggregateKeys.groups(prefix), '0', '-1');
    const log = await fixture.log();
    await trimLog(await jetstreamManager(fixture.nats), log, 'EVENTS', (await log.bounds()).last - 3);
    for (const group of groups) await redis.client.del(aggregateKeys.windows(prefix, group));

    await killed(['rebuild', 'aggregates.price'], told('aggregates.price'), copying);
    expect(await redis.client.exists('{hw}:rebuild:aggregates.price'), 'nothing stands beside yet').to.equal(0);
    const { code, stderr } = await runCli(['rebuild', 'aggregates.price'], env);
    expect(code, stderr).to.equal(0);
    for (const words of told('aggregates.price')) expect(stderr).to.include(words);
    await stopLoad();
    await caughtUp();
    const { definition } = (await new Registry(redis.client).entries()).get('price')!;
    const expected = await expectedWindows(fixture.sql, definition, 'SELECT * FROM prices', 'id');
    expect(expected.length).to.be.greaterThan(20);
    expect(differences(await storedWindows(redis.client, definition), expected).slice(0, 5)).to.deep.equal([]);
    expect((await runCli(['rebuild', 'aggregates.price', '--drop'], env)).code).to.equal(0);
    expect(await redis.client.keys(`${prefix}:*`)).to.deep.equal([]);
    expect(await redis.client.keys('{hw}:rebuild:*')).to.deep.equal([]);
  });
});
