import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import type { PreparedQuery } from '../../../gateway/query/model.ts';
import { QueryRefused } from '../../../gateway/query/refused.ts';
import type { PgClient } from '../../../pipeline/clients/postgres.ts';
import { captureFixture, type CaptureFixture } from '../../pipeline/capture/support/fixture.ts';
import { Random } from '../../pipeline/capture/support/random.ts';
import type { Row } from '../../pipeline/capture/support/stored-events.ts';
import { redisNamespace, type RedisNamespace } from '../../support/redis-namespace.ts';
import { tcpProxy, type TcpProxy } from '../../support/tcp-proxy.ts';
import { History, type Observation } from './support/history.ts';
import { prepared, startNode, type QueryNode } from './support/node.ts';

const accounts = 24;
const balance = 1_000;

interface Question {
  readonly what: string;
  readonly query: PreparedQuery;
  readonly table: string;
  readonly matches: (row: Row) => boolean;
  /** What must hold of each answer by itself. */
  readonly always?: (rows: readonly Row[]) => void;
}

const json = (statement: string): string => `SELECT row_to_json(t)::text AS item FROM (${statement}) t`;

/** Questions about rows by key, by another column of the identity, and about whole tables. */
function questions(): readonly Question[] {
  const account = (...ids: number[]): Question => ({
    what: `accounts ${ids.join(', ')}`,
    query: prepared('accounts', json('SELECT id, balance, version FROM accounts WHERE id = ANY ($1) ORDER BY id'), {
      values: [ids],
      pins: { columns: ['id'], values: ids.map((id) => [String(id)]) },
    }),
    table: 'public.accounts',
    matches: (row) => ids.includes(row['id'] as number),
  });
  const all: Question = {
    what: 'all accounts',
    query: prepared('accounts', json('SELECT id, balance, version FROM accounts ORDER BY id')),
    table: 'public.accounts',
    matches: () => true,
    always: (rows) => {
      expect(rows.length).to.equal(accounts);
      expect(rows.reduce((sum, row) => sum + (row['balance'] as number), 0)).to.equal(accounts * balance);
    },
  };
  const group = (name: string): Question => ({
    what: `things of ${name}`,
    query: prepared('things', json('SELECT id, name, v FROM things WHERE name = $1 ORDER BY id'), {
      values: [name],
      pins: { columns: ['name'], values: [[name]] },
    }),
    table: 'public.things',
    matches: (row) => row['name'] === name,
  });
  const one = (id: number, name: string): Question => ({
    what: `thing ${id} of ${name}`,
    query: prepared('things', json('SELECT id, name, v FROM things WHERE id = $1 AND name = $2'), {
      values: [id, name],
      pins: { columns: ['id', 'name'], values: [[String(id), name]] },
    }),
    table: 'public.things',
    matches: (row) => row['id'] === id && row['name'] === name,
  });
  const large: Question = {
    what: 'large things',
    query: prepared('things', json('SELECT id, name, v FROM things WHERE v > 50')),
    table: 'public.things',
    matches: (row) => (row['v'] as number) > 50,
  };
  return [
    ...Array.from({ length: accounts }, (_, id) => account(id)),
    account(0, 1, 2),
    account(5, 9, 13, 17),
    all,
    ...names.map(group),
    one(1, 'red'),
    one(2, 'green'),
    large,
  ];
}

const names = ['red', 'green', 'blue', 'grün "x"'];

describe('queries: every answer while rows change', function () {
  const seed = Number(process.env['TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
  const seconds = Number(process.env['TEST_SECONDS'] ?? 8);
  const random = new Random(seed);
  let fixture: CaptureFixture;
  let redis: RedisNamespace;
  let redisProxy: TcpProxy;
  let natsProxy: TcpProxy;
  const nodes: QueryNode[] = [];
  const stopping = new AbortController();
  const { signal } = stopping;

  before(async () => {
    fixture = await captureFixture();
    redis = await redisNamespace();
    redisProxy = await tcpProxy(Number(new URL(redis.url).port));
    natsProxy = await tcpProxy(Number(new URL(fixture.natsUrls.operator).port));
    await fixture.query('CREATE TABLE accounts (id int PRIMARY KEY, balance int, version int)');
    await fixture.query('CREATE TABLE things (id int PRIMARY KEY, name text, v int)');
    await fixture.query('ALTER TABLE things REPLICA IDENTITY FULL');
    await fixture.query(`INSERT INTO accounts SELECT i, ${balance}, 0 FROM generate_series(0, ${accounts - 1}) i`);
    await fixture.streaming();
    await fixture.settled();
    const through = (url: string, proxy: TcpProxy): string => Object.assign(new URL(url), { port: String(proxy.port) }).toString();
    const redisUrl = through(redis.url, redisProxy);
    const first = { databaseUrl: fixture.databaseUrl, natsUrl: fixture.natsUrls.operator, redisUrl, keys: redis.keys };
    nodes.push(await startNode(first));
    // The other one keeps nothing itself, and so hears all the lies.
    nodes.push(await startNode({ ...first, natsUrl: through(fixture.natsUrls.operator, natsProxy), nearBytes: 0 }));
    // Nothing is under way now: afterwards it would have to end first.
    const query = prepared('things', 'SELECT 1::text AS item', { cacheable: false });
    const claims = async ({ service }: QueryNode): Promise<boolean> =>
      (await service.answer(query, { owner: 'ann', keyId: 'ann', signal: new AbortController().signal })).asOf !== undefined;
    for (const node of nodes) await fixture.until(() => claims(node), 'the node to know what is visible');
    for (const { executor } of nodes) executor.pause = () => (random.chance(0.4) ? sleep(random.next() * 4) : Promise.resolve());
  });
  after(async () => {
    for (const node of nodes) await node.stop();
    await redis?.close();
    await redisProxy?.close();
    await natsProxy?.close();
    await fixture?.close();
  });

  /** Writes until the end; what is refused, say a key that is there already, is no matter. */
  async function write(client: PgClient, change: (client: PgClient) => Promise<unknown>): Promise<void> {
    while (!signal.aborted) {
      await change(client).catch(() => client.query('ROLLBACK'));
      await sleep(random.next() * 25);
    }
  }

  async function transfer(client: PgClient): Promise<void> {
    const [from, to] = [random.int(0, accounts - 1), random.int(0, accounts - 1)].sort((a, b) => a - b) as [number, number];
    if (from === to) return;
    const amount = random.int(-20, 20);
    await client.query('BEGIN');
    for (const [id, change] of [
      [from, -amount],
      [to, amount],
    ])
      await client.query('UPDATE accounts SET balance = balance + $1, version = version + 1 WHERE id = $2', [change, id]);
    await client.query(random.chance(0.1) ? 'ROLLBACK' : 'COMMIT');
  }

  async function meddle(client: PgClient): Promise<void> {
    const [id, other, v] = [random.int(0, 9), random.int(0, 9), random.int(0, 100)];
    const name = random.pick(names);
    const kind = random.next();
    if (kind < 0.35)
      await client.query('INSERT INTO things VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET v = excluded.v', [id, name, v]);
    else if (kind < 0.55) await client.query('UPDATE things SET name = $2, v = v + 1 WHERE id = $1', [id, name]);
    else if (kind < 0.7) await client.query('UPDATE things SET id = $2 WHERE id = $1', [id, other]);
    else if (kind < 0.9) await client.query('DELETE FROM things WHERE id = $1', [id]);
    else if (kind < 0.94) await client.query('TRUNCATE things');
    else if (kind < 0.96) await client.query(`ALTER TABLE things ADD COLUMN extra_${random.int(1, 1e9)} int DEFAULT 7`);
    else await client.query('UPDATE things SET v = v + 1');
  }

  /** Commits wait for a standby that is not there, for a moment, again and again: they are in the log, and nobody can see them. */
  async function standby(): Promise<void> {
    const client = await fixture.connect();
    await client.query('SET synchronous_commit = local');
    const set = async (name: string): Promise<void> => {
      await client.query(`ALTER SYSTEM SET synchronous_standby_names = '${name}'`);
      await client.query('SELECT pg_reload_conf()');
    };
    try {
      while (!signal.aborted) {
        await set('nobody');
        await sleep(random.int(20, 120));
        await set('');
        await sleep(random.int(100, 400));
      }
    } finally {
      await set('');
    }
  }

  /** Redis says what was true once, or never. */
  async function lie(): Promise<void> {
    const pattern = `${redis.keys.prefix}:query:*`;
    const old = new Map<string, string[]>();
    while (!signal.aborted) {
      for (const key of await redis.client.keys(pattern)) {
        const text = await redis.client.get(key);
        if (text === null) continue;
        const kept = old.get(key) ?? [];
        old.set(key, [...kept.slice(-20), text]);
        const [head, ...items] = text.split('\n');
        const said = JSON.parse(head!) as { asOf: number; epoch: string };
        const lies = [
          ...kept,
          [JSON.stringify({ ...said, asOf: said.asOf + 1_000_000 }), ...items].join('\n'),
          [JSON.stringify({ ...said, epoch: 'another', asOf: said.asOf + 10 }), ...items].join('\n'),
          random.pick([...old.values()].flat()),
        ];
        if (random.chance(0.3)) await redis.client.set(key, random.pick(lies));
        else if (random.chance(0.05)) await redis.client.del(key);
      }
      await sleep(20);
    }
  }

  /** Networks that break, one after the other. */
  async function disturb(): Promise<void> {
    while (!signal.aborted) {
      await sleep(random.int(300, 900));
      const proxy = random.pick([redisProxy, natsProxy]);
      if (random.chance(0.5)) proxy.cut();
      else proxy.stall();
      await sleep(random.int(50, 300));
      proxy.restore();
    }
  }

  const observations: Observation[] = [];
  let refused = 0;

  async function ask(node: QueryNode, asked: readonly Question[]): Promise<void> {
    const log = await fixture.log();
    while (!signal.aborted) {
      const { what, query, table, matches, always } = asked[Math.floor(asked.length * random.next() ** 2)]!;
      const head = (await log.bounds()).last;
      const minSeq = random.chance(0.1) ? head : undefined;
      try {
        const { items, asOf, cache } = await node.service.answer(query, {
          owner: 'ann',
          keyId: 'ann',
          minSeq,
          signal: new AbortController().signal,
        });
        const rows = items.map((item) => JSON.parse(item) as Row);
        always?.(rows);
        expect(asOf, 'asOf').to.be.a('number');
        if (minSeq !== undefined) expect(asOf).to.be.at.least(minSeq);
        observations.push({ what, table, matches, rows, asOf: asOf!, cache, head });
      } catch (error) {
        if (!(error instanceof QueryRefused && error.code === 'not_visible')) throw error;
        refused++;
      }
      await sleep(random.next() * 6);
    }
  }

  it(`holds what its asOf claims, and a hit all that the log held when it was asked for (TEST_SEED=${seed})`, async function () {
    this.timeout((seconds + 120) * 1_000);
    const writers = await Promise.all(
      [transfer, transfer, meddle, meddle].map(async (change, i) => {
        const client = await fixture.connect();
        // Half of the commits do not wait for the standby, and overtake those that do.
        if (i % 2 === 0) await client.query('SET synchronous_commit = local');
        return () => write(client, change);
      }),
    );
    const asked = questions().toSorted(() => random.next() - 0.5);
    const clients = Array.from({ length: 40 }, (_, i) => () => ask(nodes[i % nodes.length]!, asked));
    const running = [...writers, ...clients, standby, lie, disturb].map((each) => each());
    try {
      await Promise.race([sleep(seconds * 1_000), ...running]);
    } finally {
      stopping.abort();
      redisProxy.restore();
      natsProxy.restore();
      await Promise.allSettled(running);
    }
    await Promise.all(running);
    const events = await fixture.settled();
    const history = new History(events);
    for (const observation of observations) history.check(observation);
    const of = (cache: string): Observation[] => observations.filter((each) => each.cache === cache);
    const behind = of('miss').filter(({ asOf, head }) => asOf < head);
    const said = { events: events.length, hits: of('hit').length, misses: of('miss').length, behind: behind.length, refused };
    if (process.env['TEST_LOG_LEVEL'] !== undefined) process.stderr.write(`${JSON.stringify(said)}\n`);
    // Else it has shown nothing.
    expect(said.hits, JSON.stringify(said)).to.be.greaterThan(50);
    expect(said.behind, JSON.stringify(said)).to.be.greaterThan(5);
    expect(refused / observations.length, JSON.stringify(said)).to.be.lessThan(0.05);
  });
});
