import { expect } from 'chai';
import fc from 'fast-check';
import { createPool } from '../../../../pipeline/clients/postgres.ts';
import { silentLogger } from '../../../../pipeline/runtime/logging.ts';
import { rule, startRest, type Rest } from './support/rest.ts';

const id = '4b5c5f0e-8f0c-4a5e-9a51-2f6f3a9d7c10';
/** Every path that takes a body. */
const writes: readonly (readonly [string, string])[] = [
  ['POST', '/v2/alert-rules'],
  ['PUT', `/v2/alert-rules/${id}`],
  ['PATCH', `/v2/alert-rules/${id}`],
  ['POST', '/v2/alert-rules/test'],
  ['POST', '/v2/silences'],
  ['PUT', `/v2/silences/${id}`],
  ['PATCH', `/v2/silences/${id}`],
  ['POST', '/v2/devices'],
];
const reads = [
  '/v2/alert-rules',
  `/v2/alert-rules/${id}`,
  '/v2/alerts',
  `/v2/alerts/${id}`,
  `/v2/alerts/${id}/notifications`,
  '/v2/silences',
  `/v2/silences/${id}`,
  '/v2/devices',
];

describe('misuse of the alert routes', function () {
  this.timeout(120_000);
  let rest: Rest;
  before(async () => {
    rest = await startRest();
  });
  after(() => rest?.close());

  const bodies: [string, string | Buffer, number][] = [
    ['nothing', '', 400],
    ['no JSON', '{"name":', 400],
    ['not an object', '[1]', 400],
    ['null', 'null', 400],
    ['invalid UTF-8', Buffer.from([0x7b, 0x22, 0xc3, 0x28, 0x22, 0x3a, 0x31, 0x7d]), 400],
    ['NUL in a text', '{"name":"a\\u0000b"}', 400],
    ['half a surrogate pair', '{"name":"\\ud800"}', 400],
    ['NUL in a name', '{"a\\u0000":1}', 400],
    ['__proto__', '{"__proto__":{"scopes":["admin"]},"name":"x"}', 400],
    ['a number that is none', '{"when":{"field":"price","op":"gt","value":1e999}}', 400],
    ['nesting', `{"when":${'{"not":'.repeat(5_000)}1${'}'.repeat(5_000)}}`, 400],
    ['lists in lists', `{"match":${'['.repeat(20_000)}${']'.repeat(20_000)}}`, 400],
    ['64 KiB and more', JSON.stringify({ name: 'x'.repeat(64 * 1024) }), 413],
    ['1 MiB', JSON.stringify({ name: 'x'.repeat(1024 ** 2) }), 413],
  ];
  for (const [what, raw, status] of bodies) {
    it(`${what} as a body: ${status}`, async () => {
      for (const [method, path] of writes) {
        const answer = await rest.call(method, path, undefined, { raw });
        expect(answer.status, `${method} ${path}: ${answer.text}`).to.equal(status);
        expect(answer.error.code).to.equal(status === 413 ? 'too_large' : 'bad_request');
        if (status === 413) expect(answer.error.message).to.equal('the body has more than the 65536 bytes that are allowed');
      }
    });
  }

  it('a body of another type is refused as such', async () => {
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'application/merge-patch+json']) {
      const answer = await rest.call('POST', '/v2/alert-rules', undefined, {
        raw: JSON.stringify(rule()),
        headers: { 'content-type': type },
      });
      expect([answer.status, answer.error.code], type).to.deep.equal([415, 'unsupported_media_type']);
      expect(answer.error.message).to.equal('send the body with Content-Type: application/json');
    }
  });

  it('a number that JSON readers round is refused rather than rounded', async () => {
    for (const digits of ['0.12345678901234567891', '9007199254740993', '1e400', '1e-400']) {
      const raw = JSON.stringify(rule()).replace('"3000"', digits);
      const answer = await rest.call('POST', '/v2/alert-rules', undefined, { raw });
      expect([answer.status, answer.error.message.includes('write it as text')], digits).to.deep.equal([400, true]);
    }
    for (const digits of ['0.1', '1e3', '-2.50', '3000.000000', '"0.12345678901234567891"']) {
      const answer = await rest.call('POST', '/v2/alert-rules', undefined, { raw: JSON.stringify(rule()).replace('"3000"', digits) });
      expect(answer.status, digits).to.equal(201);
    }
  });

  it('what would be SQL is a value like any other', async () => {
    const attempts = [`'; DROP TABLE headwater.alert_rules; --`, `" OR 1=1 --`, `\\'; SELECT pg_sleep(9); --`, '$1', '%s', '{{7*7}}'];
    for (const text of attempts) {
      const encoded = encodeURIComponent(text);
      const made = await rest.call('POST', '/v2/alert-rules', rule({ name: text, match: { symbol: [text] } }));
      expect(made.status, made.text).to.equal(201);
      const found = await rest.call('GET', `/v2/alert-rules?name=${encoded}`);
      expect(found.body.items.map(({ name, match }) => [name, match])).to.deep.equal([[text, { symbol: [text] }]]);
      for (const path of [`/v2/alerts?entity.${encoded}=${encoded}`, `/v2/alert-rules?table=${encoded}`])
        expect((await rest.call('GET', path)).body.items, path).to.deep.equal([]);
      for (const path of reads) {
        const answer = await rest.call('GET', `${path}?${encoded}=1`);
        expect([answer.status, answer.error.code], path).to.deep.equal([400, 'bad_request']);
      }
      const table = await rest.call('POST', '/v2/alert-rules', rule({ table: `public.${text}` }));
      expect([table.status, table.error.field]).to.deep.equal([400, 'table']);
    }
  });

  it('columns with the names of what every object has are columns like others', async () => {
    await rest.sql('CREATE TABLE public.odd ("constructor" int PRIMARY KEY, "toString" text, "hasOwnProperty" int)');
    const body = {
      name: 'odd',
      table: 'public.odd',
      match: { toString: ['x'] },
      when: { field: 'hasOwnProperty', op: 'gt', value: 1 },
      groupBy: ['constructor'],
    };
    const { status, body: made } = await rest.call('POST', '/v2/alert-rules', body);
    expect([status, made['match'], made['groupBy']]).to.deep.equal([201, { toString: ['x'] }, ['constructor']]);
    const wrong = await rest.call('POST', '/v2/alert-rules', rule({ when: { field: 'constructor', op: 'is_null' } }));
    expect([wrong.status, wrong.error.field]).to.deep.equal([400, 'when.field']);
    expect((await rest.call('POST', '/v2/alert-rules', rule({ match: { valueOf: ['x'] } }))).status).to.equal(400);
  });

  it('whatever comes as JSON, the answer is no 500', async () => {
    const member = fc.constantFrom(
      'name',
      'table',
      'match',
      'when',
      'for',
      'channels',
      'groupBy',
      'clear',
      'rule',
      'id',
      'events',
      'endpoint',
      'keys',
      'endsAt',
      'startsAt',
      'ruleId',
      'comment',
      'enabled',
      'severity',
    );
    const leaf = fc.oneof(
      fc.jsonValue({ maxDepth: 4 }),
      fc.constantFrom('public.prices', 'price', '1m', id, '2026-11-22T12:00:00Z', { field: 'price', op: 'gt', value: 1 }),
    );
    const body = fc.dictionary(fc.oneof({ weight: 6, arbitrary: member }, { weight: 1, arbitrary: fc.string() }), leaf, { maxKeys: 8 });
    const attempt = fc.tuple(fc.constantFrom(...writes), body);
    await fc.assert(
      fc.asyncProperty(attempt, async ([[method, path], sent]) => {
        const answer = await rest.call(method, path, sent);
        expect(answer.status, `${method} ${path} ${JSON.stringify(sent)} → ${answer.text}`).to.be.within(200, 499);
        if (answer.status >= 400) expect(answer.error.code).to.match(/^[a-z_]+$/);
      }),
      { numRuns: 150 },
    );
  });

  it('whatever stands behind the question mark, the answer is no 500', async () => {
    const name = fc.oneof(
      fc.constantFrom('limit', 'cursor', 'from', 'to', 'state', 'ruleId', 'entity.a', 'entity.', 'enabled', 'name', 'table'),
      fc.string(),
    );
    const value = fc.oneof(
      fc.string(),
      fc.constantFrom('1', '2026-02-30T00:00:00Z', '2026-11-22T12:00:00+99:00', '0000-01-01T00:00:00Z', '\ufffd', 'infinity'),
    );
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...reads), fc.array(fc.tuple(name, value), { maxLength: 3 }), async (path, pairs) => {
        const query = new URLSearchParams(pairs.map(([key, text]): [string, string] => [key, text])).toString();
        const answer = await rest.call('GET', `${path}?${query}`);
        expect(answer.status, `${path}?${query} → ${answer.text}`).to.be.within(200, 499);
      }),
      { numRuns: 150 },
    );
    for (const query of ['%', '%ff=%fe', '&&&', '=', 'limit', 'limit=%31'])
      expect((await rest.call('GET', `/v2/alert-rules?${query}`)).status, query).to.be.within(200, 499);
  });
});

describe('alert routes without their database', function () {
  this.timeout(60_000);

  it('say 503 and when to come back, for every path', async () => {
    const rest = await startRest({ url: 'postgres://nobody:x@127.0.0.1:1/none' });
    try {
      for (const path of reads) {
        const answer = await rest.call('GET', path);
        expect([answer.status, answer.error.code, answer.headers.get('retry-after')], path).to.deep.equal([503, 'unavailable', '1']);
        expect(answer.error.message).not.to.include('127.0.0.1');
      }
      const answer = await rest.call('POST', '/v2/alert-rules', rule());
      expect([answer.status, answer.headers.get('retry-after')], answer.text).to.deep.equal([503, '1']);
    } finally {
      await rest.close();
    }
  });

  it('come back by themselves when the server drops their connections', async () => {
    const rest = await startRest();
    try {
      expect((await rest.call('POST', '/v2/alert-rules', rule())).status).to.equal(201);
      await rest.sql(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'test routes'`);
      const statuses: number[] = [];
      for (let i = 0; i < 10; i++) statuses.push((await rest.call('GET', '/v2/alert-rules')).status);
      expect(statuses.filter((status) => status !== 200 && status !== 503)).to.deep.equal([]);
      expect(statuses.at(-1)).to.equal(200);
    } finally {
      await rest.close();
    }
  });

  it('mend the role’s privileges that a dump has lost', async () => {
    const rest = await startRest();
    try {
      await rest.sql('REVOKE ALL ON ALL TABLES IN SCHEMA headwater FROM headwater_api');
      await rest.sql('REVOKE ALL ON FUNCTION headwater.release_device(text, text, text) FROM headwater_api');
      expect((await rest.call('GET', '/v2/alert-rules')).status).to.equal(200);
    } finally {
      await rest.close();
    }
  });

  it('a database that is not migrated is one that is not ready', async () => {
    const rest = await startRest();
    const owner = createPool(rest.databaseUrl, 'test', silentLogger(), 1);
    try {
      await owner.query('ALTER SCHEMA headwater RENAME TO elsewhere');
      const answer = await rest.call('GET', '/v2/alert-rules');
      expect([answer.status, answer.error.code]).to.deep.equal([503, 'unavailable']);
      expect(answer.error.message).to.include('headwater migrate');
    } finally {
      await owner.end();
      await rest.close();
    }
  });
});
