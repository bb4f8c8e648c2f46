import { expect } from 'chai';
import { startQueryRest, type QueryAnswerBody, type QueryRest } from './support/query-rest.ts';
import { redisNamespace, type RedisNamespace } from '../../support/redis-namespace.ts';
import { testServers } from '../../support/servers.ts';
import { tcpProxy } from '../../support/tcp-proxy.ts';

const seed = `
  CREATE TABLE public.big (id int PRIMARY KEY, name text, n int);
  INSERT INTO public.big SELECT i, 'name ' || i, i % 1000 FROM generate_series(1, 200000) i;
  ANALYZE public.big;
  CREATE TABLE public.wide (id int PRIMARY KEY, body text);
  INSERT INTO public.wide SELECT i, repeat(md5(i::text), 4000) FROM generate_series(1, 300) i;
  CREATE TABLE public.long (id int PRIMARY KEY, body text);
  INSERT INTO public.long SELECT i, repeat('a', 20000) FROM generate_series(1, 20) i;
  CREATE FUNCTION public.slowly(id int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_catalog.pg_sleep(0.3); RETURN true; END $$;
  CREATE TABLE public.slow (id int PRIMARY KEY);
  INSERT INTO public.slow SELECT generate_series(1, 20);
  ALTER TABLE public.slow ENABLE ROW LEVEL SECURITY;
  CREATE POLICY slow ON public.slow USING (public.slowly(id))`;

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

describe('queries, guards', function () {
  this.timeout(120_000);
  let rest: QueryRest;
  before(async () => {
    rest = await startQueryRest({
      seed,
      env: { HEADWATER_QUERY_TIMEOUT: '1s', HEADWATER_QUERY_COST: '20000', HEADWATER_QUERY_TIERS: 'standard=1000000/3,high=1000000/64' },
    });
  });
  after(() => rest?.close());

  it('a query whose plan costs too much is refused before it runs, with its cost', async () => {
    const { status, error, ms } = await rest.post({
      from: 'big',
      groupBy: ['name'],
      aggregate: { n: { fn: 'count_distinct', field: 'n' } },
    });
    expect([status, error.code]).to.deep.equal([400, 'query_too_costly']);
    expect(error.message).to.match(/cost of this query at \d+, and 20000 is allowed/);
    expect(ms).to.be.lessThan(1_000);
    // What an index or a limit makes cheap is allowed, and so is all of the table where that is cheap enough.
    expect((await rest.post({ from: 'big', where: 'id = 77' })).body.items).to.deep.equal([{ id: 77, name: 'name 77', n: 77 }]);
    expect((await rest.post({ from: 'big', limit: 1 })).status).to.equal(200);
    expect((await rest.post({ from: 'big', aggregate: { n: { fn: 'count' } } })).body.items).to.deep.equal([{ n: '200000' }]);
  });

  it('a query that takes too long is ended, and the connection serves the next one', async () => {
    const { status, error, ms } = await rest.post({ from: 'slow' });
    expect([status, error.code]).to.deep.equal([400, 'query_timeout']);
    expect(ms).to.be.within(800, 2_000);
    expect((await rest.post({ from: 'slow', where: 'id = 1' })).status).to.equal(200);
  });

  it('an answer of more bytes than anybody should get is cut off, whatever a row holds', async () => {
    const { status, error } = await rest.post({ from: 'wide', limit: 1000 });
    expect([status, error.code, error.field]).to.deep.equal([400, 'query_too_large', 'limit']);
    const some = await rest.post({ from: 'wide', limit: 20 });
    expect(some.body.items).to.have.length(20);
    expect((await rest.post({ from: 'wide', select: ['id'], limit: 1000 })).body.items).to.have.length(300);
  });

  it('patterns that would go through a text again and again are refused, or end in time', async () => {
    for (const pattern of [`${'%a'.repeat(40)}%b`, `${'%'.repeat(500)}b`, `${'_%'.repeat(60)}b`, `%${'a_'.repeat(50)}b%`]) {
      for (const op of ['like', 'ilike']) {
        const { status, ms, text } = await rest.post({ from: 'long', select: ['id'], where: { field: 'body', op, value: pattern } });
        expect(status, text).to.be.oneOf([200, 400]);
        expect(ms, `${op} ${pattern.slice(0, 20)}`).to.be.lessThan(2_000);
      }
    }
  });

  it('a table that is being changed is not waited for longer than a moment', async () => {
    const lock = rest.sql(`DO $$ BEGIN LOCK TABLE public.tokens IN ACCESS EXCLUSIVE MODE; PERFORM pg_sleep(1.5); END $$`);
    await sleep(200);
    const { status, error, ms, headers } = await rest.post({ from: 'tokens' });
    expect([status, error.code, headers.get('retry-after')]).to.deep.equal([503, 'unavailable', '1']);
    expect(ms).to.be.lessThan(1_400);
    await lock;
    expect((await rest.post({ from: 'tokens' })).status).to.equal(200);
  });

  it('a key has so many queries at once as its tier allows, and not one less afterwards', async () => {
    const slow = (as: string): Promise<QueryAnswerBody> => rest.post({ from: 'slow', where: 'id = 1' }, as);
    const answers = await Promise.all([1, 2, 3, 4, 5].map(() => slow('bob')).concat([1, 2, 3, 4, 5].map(() => slow('high'))));
    expect(
      answers
        .slice(0, 5)
        .map(({ status }) => status)
        .toSorted((a, b) => a - b),
    ).to.deep.equal([200, 200, 200, 429, 429]);
    expect(answers.slice(5).map(({ status }) => status)).to.deep.equal([200, 200, 200, 200, 200]);
    const refused = answers.find(({ status }) => status === 429)!;
    expect([refused.error.code, refused.headers.get('retry-after')]).to.deep.equal(['rate_limited', '1']);
    expect((await Promise.all([1, 2, 3].map(() => slow('bob')))).map(({ status }) => status)).to.deep.equal([200, 200, 200]);
  });

  it('a client that leaves frees its place, and ends its query', async () => {
    const leaving = [1, 2, 3].map(async () => {
      const signal = AbortSignal.timeout(100);
      const headers = { authorization: 'Bearer bob' };
      await fetch(`${rest.url}/v2/query?from=slow`, { headers, signal }).catch(() => undefined);
    });
    await Promise.all(leaving);
    // The database goes on with none of them either.
    const working = `SELECT count(*)::int AS n FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%"slow"%' AND pid <> pg_backend_pid()`;
    await sleep(300);
    expect(await rest.sql(working)).to.deep.equal([{ n: 0 }]);
    expect(
      (await Promise.all([1, 2, 3].map(() => rest.post({ from: 'slow', where: 'id = 2' }, 'bob')))).map(({ status }) => status),
    ).to.deep.equal([200, 200, 200]);
  });

  it('bodies are bounded, and have to be JSON', async () => {
    const json = { 'content-type': 'application/json' };
    const cases: [string | Buffer | undefined, Record<string, string>, number, string][] = [
      [JSON.stringify({ from: 'x'.repeat(70_000) }), json, 413, 'too_large'],
      ['from: prices', { 'content-type': 'text/yaml' }, 415, 'unsupported_media_type'],
      [undefined, {}, 400, 'bad_request'],
      ['', json, 400, 'bad_request'],
      ['{', json, 400, 'bad_request'],
      ['[]', json, 400, 'bad_request'],
      ['null', json, 400, 'bad_request'],
      ['"prices"', json, 400, 'bad_request'],
      [Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]), json, 400, 'bad_request'],
      ['{"from":"prices","limit":1e400}', json, 400, 'bad_request'],
      ['{"from":"prices","where":{"field":"price","op":"gt","value":12345678901234567890.5}}', json, 400, 'bad_request'],
      [`{"from":"prices","where":${'['.repeat(5_000)}${']'.repeat(5_000)}}`, json, 400, 'bad_request'],
      ['{"from":"prices","__proto__":{"limit":1}}', json, 400, 'bad_request'],
      ['{"from":"prices\\u0000"}', json, 400, 'bad_request'],
      ['{"from":"prices","minSeq":"5"}', json, 400, 'bad_query'],
      ['{"from":"prices","minSeq":-1}', json, 400, 'bad_query'],
      ['{"from":"prices","minSeq":1.5}', json, 400, 'bad_query'],
    ];
    for (const [body, headers, status, code] of cases) {
      const answer = await rest.send('POST', '/v2/query', { headers, ...(body !== undefined && { body }) });
      expect([answer.status, answer.error.code], String(body).slice(0, 60)).to.deep.equal([status, code]);
    }
  });

  it('parameters of a URL are each known and given once', async () => {
    const cases: [string, string | undefined][] = [
      ['from=prices&limt=5', 'limt'],
      ['from=prices&from=tvl', 'from'],
      ['from=prices&limit=5&limit=5', 'limit'],
      ['from=prices&minSeq=5&minSeq=5', 'minSeq'],
      ['from=prices&minSeq=x', 'minSeq'],
      ['from=prices&where=symbol%20%3D%20%22%00%22', 'where'],
      ['from%00=prices', 'from'],
      ['', 'from'],
    ];
    for (const [query, field] of cases) {
      const answer = await rest.send('GET', `/v2/query?${query}`);
      expect([answer.status, answer.error.code, answer.error.field], query).to.deep.equal([400, 'bad_query', field]);
    }
  });

  it('takes no other methods, no key in the URL, and no one without a key', async () => {
    expect((await rest.send('PUT', '/v2/query')).status).to.equal(405);
    expect((await rest.get({ from: 'prices', api_key: 'secret' })).status).to.equal(400);
    expect((await rest.get({ from: 'prices' }, 'nobody')).status).to.equal(401);
  });
});

describe('queries, rates', function () {
  this.timeout(120_000);
  let space: RedisNamespace;
  before(async () => {
    space = await redisNamespace();
  });
  after(() => space.close());

  const env = { HEADWATER_QUERY_TIERS: 'standard=5/64,high=20/64' };

  async function statuses(rest: QueryRest, count: number, as = 'secret'): Promise<number[]> {
    const found: number[] = [];
    for (let i = 0; i < count; i++) found.push((await rest.post({ from: 'chains' }, as)).status);
    return found;
  }

  it('each key has its tier’s, told in the standard headers; what is refused counts too', async () => {
    const rest = await startQueryRest({ env });
    try {
      const first = await rest.post({ from: 'nowhere' });
      expect(['ratelimit-limit', 'ratelimit-remaining'].map((name) => first.headers.get(name))).to.deep.equal(['5', '4']);
      expect(Number(first.headers.get('ratelimit-reset'))).to.be.within(1, 60);
      expect(await statuses(rest, 5)).to.deep.equal([200, 200, 200, 200, 429]);
      const refused = await rest.get({ from: 'chains' });
      expect(refused.error).to.include({ code: 'rate_limited', message: 'this key may make 5 queries a minute, and has made them' });
      expect(refused.headers.get('ratelimit-remaining')).to.equal('0');
      expect(Number(refused.headers.get('retry-after'))).to.be.within(1, 60);
      expect(await statuses(rest, 6, 'bob')).to.deep.equal([200, 200, 200, 200, 200, 429]);
      expect(await statuses(rest, 20, 'high')).to.deep.equal(Array.from({ length: 20 }, () => 200));
      expect(await statuses(rest, 1, 'high')).to.deep.equal([429]);
      // Who is not let in at all, is not counted as anybody.
      expect(await statuses(rest, 1, 'nobody')).to.deep.equal([401]);
    } finally {
      await rest.close();
    }
  });

  it('several gateways count together, and their windows end', async () => {
    const [one, two] = await Promise.all([1, 2].map(() => startQueryRest({ env, redisUrl: space.url, keys: space.keys })));
    try {
      expect(await statuses(one!, 3)).to.deep.equal([200, 200, 200]);
      expect(await statuses(two!, 3)).to.deep.equal([200, 200, 429]);
      const [key, more] = await space.client.keys(`${space.keys.prefix}:rate:*`);
      expect(more).to.equal(undefined);
      expect(await space.client.pttl(key!)).to.be.within(1, 60_000);
      await space.client.del(key!);
      expect(await statuses(one!, 1)).to.deep.equal([200]);
    } finally {
      await Promise.all([one!.close(), two!.close()]);
    }
  });

  it('without Redis requests go on, limited by each gateway for itself; they do not wait for it either', async () => {
    const target = Number(new URL(space.url).port);
    const proxy = await tcpProxy(target);
    const url = new URL(space.url);
    url.port = String(proxy.port);
    const rest = await startQueryRest({ env, redisUrl: url.toString() });
    try {
      expect(await statuses(rest, 2)).to.deep.equal([200, 200]);
      proxy.cut();
      await sleep(100);
      expect(await statuses(rest, 6)).to.deep.equal([200, 200, 200, 200, 200, 429]);
      proxy.restore();
      await sleep(3_000);
      // It is counted there again, behind the two of before.
      expect(await statuses(rest, 4)).to.deep.equal([200, 200, 200, 429]);
      proxy.stall();
      const begun = performance.now();
      const stalled = await statuses(rest, 3, 'bob');
      expect(stalled).to.deep.equal([200, 200, 200]);
      expect(performance.now() - begun).to.be.lessThan(2_000);
    } finally {
      await rest.close();
      await proxy.close();
    }
  });
});

describe('queries, without the database', function () {
  this.timeout(120_000);
  it('are answered 503, and served again when it is back', async () => {
    const proxy = await tcpProxy(Number(new URL((await testServers()).databaseUrl).port));
    const through = (databaseUrl: string): string => {
      const url = new URL(databaseUrl);
      url.port = String(proxy.port);
      return url.toString();
    };
    const rest = await startQueryRest({ gatewayUrl: through, env: { HEADWATER_QUERY_TIMEOUT: '500ms' } });
    try {
      expect((await rest.post({ from: 'chains' })).status).to.equal(200);
      proxy.cut();
      const away = await rest.post({ from: 'chains', limit: 5 });
      expect([away.status, away.error.code]).to.deep.equal([503, 'unavailable']);
      proxy.restore();
      await sleep(500);
      expect((await rest.post({ from: 'chains', limit: 6 })).status).to.equal(200);
      // A network that swallows everything: the connection is given up.
      proxy.stall();
      const stalled = await rest.post({ from: 'chains', limit: 7 });
      expect([stalled.status, stalled.error.code]).to.deep.equal([503, 'unavailable']);
      expect(stalled.ms).to.be.lessThan(10_000);
      proxy.restore();
      await sleep(500);
      expect((await rest.post({ from: 'chains', limit: 8 })).status).to.equal(200);
    } finally {
      await rest.close();
      await proxy.close();
    }
  });
});
