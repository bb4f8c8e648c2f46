import { expect } from 'chai';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { cacheKey } from '../../../gateway/query/cache.ts';
import type { PreparedQuery, QueryAnswer } from '../../../gateway/query/model.ts';
import { QueryRefused } from '../../../gateway/query/refused.ts';
import { captureFixture, type CaptureFixture } from '../../pipeline/capture/support/fixture.ts';
import { redisNamespace, type RedisNamespace } from '../../support/redis-namespace.ts';
import { tcpProxy, type TcpProxy } from '../../support/tcp-proxy.ts';
import { prepared, startNode, type NodeOptions, type QueryNode } from './support/node.ts';

const thing = (id: number): PreparedQuery =>
  prepared('things', 'SELECT row_to_json(t)::text AS item FROM (SELECT id, v FROM things WHERE id = $1) t', {
    values: [id],
    pins: { columns: ['id'], values: [[String(id)]] },
  });
const things = prepared('things', 'SELECT row_to_json(t)::text AS item FROM (SELECT id, v FROM things ORDER BY id) t');
const others = prepared('others', 'SELECT row_to_json(t)::text AS item FROM (SELECT id, v FROM others ORDER BY id) t');

function ask(node: QueryNode, query: PreparedQuery, minSeq?: number, signal = new AbortController().signal): Promise<QueryAnswer> {
  return node.service.answer(query, { owner: 'ann', keyId: 'ann', minSeq, signal });
}

/** The values of `v`. */
const values = ({ items }: QueryAnswer): number[] => items.map((item) => (JSON.parse(item) as { v: number }).v);

describe('queries: answers from cache and database', function () {
  let fixture: CaptureFixture;
  let redis: RedisNamespace;
  let redisProxy: TcpProxy;
  let natsProxy: TcpProxy;
  const nodes: QueryNode[] = [];

  const start = async (options: Partial<NodeOptions> = {}): Promise<QueryNode> => {
    const through = (url: string, proxy: TcpProxy): string => Object.assign(new URL(url), { port: String(proxy.port) }).toString();
    const node = await startNode({
      databaseUrl: fixture.databaseUrl,
      natsUrl: through(fixture.natsUrls.operator, natsProxy),
      redisUrl: through(redis.url, redisProxy),
      keys: redis.keys,
      ...options,
    });
    nodes.push(node);
    return node;
  };
  /** Everything committed is in the log, and the nodes have read it. Returns the log's end. */
  const level = async (): Promise<number> => {
    await fixture.settled();
    const { last } = await (await fixture.log()).bounds();
    for (const { tail } of nodes) await tail.reached(last, AbortSignal.timeout(5_000));
    return last;
  };
  const standby = async (name: string): Promise<void> => {
    // The session that asks must not wait itself.
    await fixture.query('SET synchronous_commit = local');
    await fixture.query(`ALTER SYSTEM SET synchronous_standby_names = '${name}'`);
    await fixture.query('SELECT pg_reload_conf()');
    const is = async (): Promise<unknown> => (await fixture.query('SHOW synchronous_standby_names'))[0]!['synchronous_standby_names'];
    await fixture.until(async () => (await is()) === name, 'the setting');
  };
  /** A commit that is durable and in the log, but visible to nobody while a standby is missing. */
  const hang = async (statement: string): Promise<{ released: Promise<unknown>; seq: number }> => {
    const client = await fixture.connect();
    const released = client.query(statement);
    await fixture.until(
      async () => (await fixture.query(`SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep'`)).length > 0,
      'the commit to wait',
    );
    await level();
    const { seq } = (await fixture.events()).findLast((event) => event.table === 'public.things')!;
    return { released, seq };
  };

  before(async () => {
    fixture = await captureFixture();
    redis = await redisNamespace();
    redisProxy = await tcpProxy(Number(new URL(redis.url).port));
    natsProxy = await tcpProxy(Number(new URL(fixture.natsUrls.operator).port));
    for (const table of ['things', 'others']) {
      await fixture.query(`CREATE TABLE ${table} (id int PRIMARY KEY, v int)`);
      await fixture.query(`INSERT INTO ${table} SELECT i, 0 FROM generate_series(1, 5) i`);
    }
    await fixture.streaming();
  });
  beforeEach(async () => {
    await fixture.query(`UPDATE things SET v = 0 WHERE v <> 0`);
    await level();
  });
  afterEach(async () => {
    for (const node of nodes.splice(0)) await node.stop();
    await redis.empty();
  });
  after(async () => {
    await redis?.close();
    await redisProxy?.close();
    await natsProxy?.close();
    await fixture?.close();
  });

  it('are kept until the log has a change of what they depend on, and no longer', async () => {
    const [node, other] = [await start(), await start()];
    const first = await ask(node, thing(1));
    expect(first).to.include({ cache: 'miss' });
    await ask(node, things);
    // A node takes note of single rows from when it is first asked for some.
    await ask(other, thing(2));
    await fixture.query('UPDATE things SET v = 7 WHERE id = 2');
    const head = await level();
    for (const each of [node, other]) {
      const kept = await ask(each, thing(1));
      expect(kept, 'another row has changed').to.include({ cache: 'hit' });
      expect(kept.asOf).to.be.at.least(head);
      expect(values(kept)).to.deep.equal([0]);
    }
    const all = await ask(node, things);
    expect(all).to.include({ cache: 'miss' });
    expect(values(all)).to.deep.equal([0, 7, 0, 0, 0]);
    await fixture.query('UPDATE things SET v = 8 WHERE id = 1');
    await level();
    expect(values(await ask(other, thing(1)))).to.deep.equal([8]);
    expect(await ask(node, thing(1)), 'kept by the other node').to.include({ cache: 'hit' });
  });

  it('know of a row that takes another key, of a truncated table, and of another definition', async () => {
    const node = await start();
    const changed = async (statement: string, ids: readonly number[]): Promise<number[][]> => {
      for (const id of ids) await ask(node, thing(id));
      for (const id of ids) expect(await ask(node, thing(id))).to.include({ cache: 'hit' });
      await fixture.query(statement);
      await level();
      return Promise.all(ids.map(async (id) => values(await ask(node, thing(id)))));
    };
    expect(await changed('UPDATE things SET id = 9, v = 3 WHERE id = 5', [4, 5, 9])).to.deep.equal([[0], [], [3]]);
    // PostgreSQL tells of it with the first change after it.
    const { runs } = node.executor;
    await changed('ALTER TABLE things ADD COLUMN extra int; UPDATE things SET v = 1 WHERE id = 2', [1]);
    expect(node.executor.runs - runs, 'once before, once after').to.equal(2);
    expect(await changed('TRUNCATE things', [1, 2])).to.deep.equal([[], []]);
    await fixture.query(`INSERT INTO things SELECT i, 0 FROM generate_series(1, 5) i`);
    await level();
    expect(values(await ask(node, thing(1)))).to.deep.equal([0]);
  });

  it('never tell of a transaction that is in the log and not yet visible, and tell of it when it is', async () => {
    const node = await start({ visibleWithinMs: 300 });
    await ask(node, thing(1));
    await ask(node, others);
    await standby('nobody');
    let released: Promise<unknown> | undefined;
    try {
      const hanging = await hang('UPDATE things SET v = 5 WHERE id = 1');
      ({ released } = hanging);
      for (let n = 0; n < 3; n++) {
        const answer = await ask(node, thing(1));
        expect(answer).to.include({ cache: 'miss' });
        expect(answer.asOf).to.be.lessThan(hanging.seq);
        expect(values(answer)).to.deep.equal([0]);
      }
      // Another query of the same moment shows it just as little.
      expect((await ask(node, prepared('things', 'SELECT 1::text AS item'))).asOf).to.be.lessThan(hanging.seq);
      expect((await ask(node, others)).asOf, 'it is of no concern there').to.be.at.least(hanging.seq);
      const late = await ask(node, thing(1), hanging.seq).catch((error: unknown) => error);
      expect(late).to.be.instanceOf(QueryRefused).and.include({ code: 'not_visible', field: 'minSeq' });
      const unkept = prepared('others', 'SELECT v::text AS item FROM others WHERE id < 3');
      expect((await ask(node, unkept, hanging.seq)).asOf, 'nor to a reading of that').to.be.at.least(hanging.seq);
      const patient = await start();
      const waiting = ask(patient, thing(1), hanging.seq);
      await sleep(200);
      await standby('');
      const answer = await waiting;
      expect(values(answer)).to.deep.equal([5]);
      expect(answer.asOf).to.be.at.least(hanging.seq);
    } finally {
      await standby('');
      await released;
    }
    expect(values(await ask(node, thing(1)))).to.deep.equal([5]);
    expect(await ask(node, thing(1))).to.include({ cache: 'hit' });
  });

  it('claim nothing on a node that cannot look back to a transaction that may still be invisible', async () => {
    await standby('nobody');
    let released: Promise<unknown> | undefined;
    try {
      ({ released } = await hang('UPDATE things SET v = 6 WHERE id = 1'));
      for (let i = 0; i < 40; i++) await fixture.query(`UPDATE others SET v = v + 1`);
      await level();
      const node = await start({ windowBytes: 4_096 });
      expect(node.tail.window.first, 'it has not read the hanging change').to.be.greaterThan((await fixture.events()).length - 20);
      for (let n = 0; n < 3; n++) {
        for (const query of [thing(1), others]) expect((await ask(node, query)).asOf).to.equal(undefined);
        await sleep(20);
      }
      await standby('');
      await released;
      await fixture.until(async () => (await ask(node, thing(1))).asOf !== undefined, 'the answers to be known again');
      expect(values(await ask(node, thing(1)))).to.deep.equal([6]);
    } finally {
      await standby('');
      await released;
    }
  });

  it('come from the database while Redis does not answer, and from the cache when it is back', async () => {
    const node = await start();
    await ask(node, thing(1));
    expect(await ask(node, thing(1))).to.include({ cache: 'hit' });
    for (const trouble of [() => redisProxy.cut(), () => redisProxy.stall()]) {
      trouble();
      await fixture.query('UPDATE things SET v = v + 1 WHERE id = 1');
      const head = await level();
      const answer = await ask(node, thing(1));
      expect(answer).to.include({ cache: 'miss' });
      expect(answer.asOf).to.be.at.least(head);
      redisProxy.restore();
      await fixture.until(async () => (await ask(node, thing(1))).cache === 'hit', 'hits');
      expect(values(await ask(node, thing(1)))).to.deep.equal(values(answer));
    }
  });

  it('come from the database while NATS does not answer: nobody then knows what has changed', async () => {
    const node = await start();
    await ask(node, thing(1));
    expect(await ask(node, thing(1))).to.include({ cache: 'hit' });
    const { position } = node.tail;
    for (const trouble of [() => natsProxy.cut(), () => natsProxy.stall()]) {
      trouble();
      await fixture.query('UPDATE things SET v = v + 1 WHERE id = 1');
      const before = await fixture.query('SELECT v FROM things WHERE id = 1');
      for (let n = 0; n < 3; n++) {
        const answer = await ask(node, thing(1));
        expect(answer).to.include({ cache: 'miss' });
        expect(values(answer)).to.deep.equal([before[0]!['v']]);
        expect(answer.asOf).to.be.at.least(position).and.at.most(node.tail.position);
      }
      natsProxy.restore();
      await fixture.until(async () => (await ask(node, thing(1))).cache === 'hit', 'hits', 30_000);
      expect(values(await ask(node, thing(1)))).to.deep.equal([before[0]!['v']]);
    }
  });

  it('are kept by the node itself too, which still takes a newer one of another node', async () => {
    const [one, other] = [await start(), await start()];
    const key = `${redis.keys.prefix}:query:${cacheKey(thing(1))}`;
    await ask(one, thing(1));
    await fixture.until(async () => (await redis.client.del(key)) === 1, 'the answer to be kept');
    expect(await ask(one, thing(1))).to.include({ cache: 'hit' });
    expect(await ask(other, thing(1))).to.include({ cache: 'miss' });
    await fixture.query('UPDATE things SET v = 44 WHERE id = 1');
    await level();
    await redis.client.del(key);
    await ask(other, thing(1));
    await fixture.until(async () => (await redis.client.exists(key)) === 1, 'the newer answer to be kept');
    const answer = await ask(one, thing(1));
    expect([answer.cache, values(answer)]).to.deep.equal(['hit', [44]]);
  });

  it('do not depend on what Redis says: old, foreign, mangled and future entries are not given', async () => {
    const node = await start({ nearBytes: 0 });
    const key = `${redis.keys.prefix}:query:${cacheKey(thing(1))}`;
    await ask(node, thing(1));
    await fixture.until(async () => (await redis.client.exists(key)) === 1, 'the answer to be kept');
    const original = (await redis.client.get(key))!;
    const [head, body] = original.split('\n') as [string, string];
    const lie = (changes: object, items = body): string => `${JSON.stringify({ ...(JSON.parse(head) as object), ...changes })}\n${items}`;
    await fixture.query('UPDATE things SET v = 4 WHERE id = 1');
    const last = await level();
    const lies = [
      original,
      lie({ epoch: 'another', asOf: last }),
      lie({ asOf: last + 1_000 }),
      lie({ asOf: Number.MAX_SAFE_INTEGER }),
      lie({ asOf: -1 }),
      lie({ asOf: null }),
      lie({ asOf: last, key: 'of-another-query' }),
      lie({ asOf: last, count: 2 }),
      lie({ asOf: last, more: [1] }),
      '',
      '\n',
      'null\n',
      '[]\n{}',
      `${'['.repeat(50_000)}\n`,
    ];
    for (const text of lies) {
      await redis.client.set(key, text);
      const answer = await ask(node, thing(1));
      expect([answer.cache, values(answer)], text.slice(0, 100)).to.deep.equal(['miss', [4]]);
      await fixture.until(async () => (await redis.client.get(key)) !== text, 'the answer to be kept again');
    }
    await redis.client.del(key);
    await redis.client.lpush(key, 'a list');
    expect(values(await ask(node, thing(1)))).to.deep.equal([4]);
  });

  it('are read once for all who ask the same at the same time; who leaves does not end it for the others', async () => {
    const node = await start();
    let reading: AbortSignal | undefined;
    let go!: () => void;
    const gone = new Promise<void>((resolve) => (go = resolve));
    node.executor.pause = (signal) => ((reading = signal), gone);
    const runs = node.executor.runs;
    const leaving = new AbortController();
    const left = ask(node, thing(3), undefined, leaving.signal).catch((error: unknown) => error);
    const staying = Array.from({ length: 50 }, () => ask(node, thing(3)));
    await fixture.until(() => node.executor.runs > runs, 'the reading');
    await sleep(100);
    leaving.abort(new Error('left'));
    expect(await left).to.have.property('message', 'left');
    expect(reading!.aborted).to.equal(false);
    go();
    for (const answer of await Promise.all(staying)) expect(values(answer)).to.deep.equal([0]);
    // Those whose question to the log came later share one more at most.
    expect(node.executor.runs - runs).to.be.at.most(2);
    reading = undefined;
    node.executor.pause = async (signal) => {
      reading = signal;
      if (!signal.aborted) await once(signal, 'abort');
    };
    const alone = new AbortController();
    const abandoned = ask(node, others, undefined, alone.signal).catch((error: unknown) => error);
    await fixture.until(() => reading !== undefined, 'the reading');
    alone.abort(new Error('left'));
    await abandoned;
    expect(reading!.aborted, 'nobody waits for it any more').to.equal(true);
  });

  it('of a reading that began before a change are not given to who asks after it', async () => {
    const node = await start();
    const gates: (() => void)[] = [];
    let pauses = 0;
    // The first reading rests after it has read.
    node.executor.pause = () => (++pauses === 3 ? new Promise((resolve) => gates.push(resolve)) : Promise.resolve());
    const early = ask(node, thing(4));
    await fixture.until(() => gates.length > 0, 'the reading');
    await fixture.query('UPDATE things SET v = 9 WHERE id = 4');
    await level();
    const late = Array.from({ length: 10 }, () => ask(node, thing(4)));
    await sleep(50);
    gates[0]!();
    expect(values(await early)).to.deep.equal([0]);
    for (const answer of await Promise.all(late)) expect(values(answer)).to.deep.equal([9]);
  });

  it('of another history of the log are not given, whatever their sequences', async () => {
    const node = await start();
    await ask(node, thing(1));
    expect(await ask(node, thing(1))).to.include({ cache: 'hit' });
    const { epoch } = node.tail;
    await fixture.record.put('reset', 'resnapshot');
    await fixture.until(async () => (await (await fixture.log()).bounds()).epoch !== epoch, 'the new history');
    expect(await ask(node, thing(1)), 'this node may not know yet').to.include({ cache: 'miss' });
    await fixture.until(() => node.tail.ready && node.tail.epoch !== epoch, 'the node to follow it');
    const head = await level();
    const { cache, asOf } = await ask(node, thing(1));
    expect(cache).to.equal('miss');
    expect(asOf).to.be.at.least(head);
    expect(await ask(node, thing(1))).to.include({ cache: 'hit' });
  });

  it('of tables with changes that are in no log are never kept or shared', async () => {
    const node = await start();
    const query = prepared('things', 'SELECT count(*)::text AS item FROM things', { cacheable: false });
    const runs = node.executor.runs;
    const answers = await Promise.all(Array.from({ length: 5 }, () => ask(node, query)));
    expect(answers.every(({ cache, asOf }) => cache === 'miss' && asOf !== undefined)).to.equal(true);
    expect(node.executor.runs - runs).to.equal(5);
    expect(await redis.client.exists(`${redis.keys.prefix}:query:${cacheKey(query)}`)).to.equal(0);
  });
});
