import { expect } from 'chai';
import { rule, startRest, type Rest } from './support/rest.ts';

const path = '/v2/alert-rules';

/** What a person sends, the field he hears about, and what he hears. */
const cases: [string, Record<string, unknown>, string, RegExp][] = [
  ['no name', { name: undefined }, 'name', /is missing/],
  ['an empty name', { name: ' ' }, 'name', /must be text/],
  ['a name that is too long', { name: 'x'.repeat(201) }, 'name', /200 characters/],
  ['a name of several lines', { name: 'a\nb' }, 'name', /one line/],
  ['no table', { table: undefined }, 'table', /is missing: <schema>\.<table>/],
  ['a table without schema', { table: 'prices' }, 'table', /must be <schema>\.<table>, like public\.prices/],
  ['a table that is not there', { table: 'public.price' }, 'table', /no such table; did you mean public\.prices\?/],
  ['a table of Headwater', { table: 'headwater.alert_history' }, 'table', /would never rest/],
  ['a table of Headwater that is not captured', { table: 'headwater.users' }, 'table', /would never rest/],
  ['a table of the system', { table: 'pg_catalog.pg_class' }, 'table', /not captured.*catalogue leaves it out/],
  ['a table that the catalogue excludes', { table: 'audit.events' }, 'table', /not captured.*catalogue leaves it out/],
  ['a view', { table: 'public.expensive' }, 'table', /no such table/],
  ['an unlogged table', { table: 'public.scratch' }, 'table', /not captured.*unlogged/],
  ['a table without identity', { table: 'public.keyless' }, 'table', /not captured.*replica identity/],
  ['a partition', { table: 'public.parted_1' }, 'table', /not captured.*is a partition/],
  ['a table that is newer than capture', { table: 'public.young' }, 'table', /not captured.*joins when capture starts again/],
  [
    'a table that has no key, and no groupBy',
    { table: 'public.full_identity', when: { field: 'n', op: 'gt', value: 1 } },
    'groupBy',
    /has no primary key: name the columns/,
  ],
  [
    'a column that is not there',
    { when: { field: 'prise', op: 'gt', value: 1 } },
    'when.field',
    /no column of the table; did you mean price\?/,
  ],
  ['a column that the catalogue excludes', { table: 'public.hidden', when: { field: 'secret', op: 'is_null' } }, 'when.field', /no column/],
  [
    'a generated column, which events lack',
    { table: 'public.hidden', when: { field: 'twice', op: 'gt', value: 1 } },
    'when.field',
    /no column/,
  ],
  ['no condition', { when: undefined }, 'when', /is missing/],
  ['an empty condition', { when: {} }, 'when', /must be one of/],
  ['an empty and', { when: { and: [] } }, 'when.and', /is empty/],
  ['an operator that is not there', { when: { field: 'price', op: '>', value: 1 } }, 'when.op', /must be one of eq, ne, gt/],
  ['an operator that the type lacks', { when: { field: 'symbol', op: 'crosses_above', value: 1 } }, 'when.op', /does not have: it is text/],
  [
    'a value that is not of the type',
    { when: { field: 'price', op: 'gt', value: 'high' } },
    'when.value',
    /must be a number \(price is numeric\)/,
  ],
  ['null as a value', { when: { field: 'price', op: 'eq', value: null } }, 'when.value', /is_null/],
  ['null in a list', { when: { field: 'chain', op: 'in', value: ['base', null] } }, 'when.value[1]', /is null/],
  ['an empty list', { when: { field: 'chain', op: 'in', value: [] } }, 'when.value', /is empty/],
  ['a range from high to low', { when: { field: 'price', op: 'between', value: [2, 1] } }, 'when.value', /nothing is between/],
  ['no value', { when: { field: 'price', op: 'gt' } }, 'when.value', /is missing/],
  ['a member too many', { when: { field: 'price', op: 'gt', value: 1, unit: 'usd' } }, 'when.unit', /not known here/],
  ['a condition within a leaf', { when: { and: [{ field: 'price', op: 'gt', value: 1 }], or: [] } }, 'when.or', /beside and/],
  ['an edge under not', { when: { not: { field: 'price', op: 'changed' } } }, 'when.not.op', /cannot stand under not/],
  ['an edge that is to hold for a time', { when: { field: 'price', op: 'changed' }, for: '1m' }, 'for', /must be 0s/],
  ['an edge that is to be kept', { when: { field: 'price', op: 'changed' }, keepFiringFor: '1m' }, 'keepFiringFor', /must be 0s/],
  ['an edge with clear', { when: { field: 'price', op: 'changed' }, clear: { field: 'price', op: 'gt', value: 1 } }, 'clear', /left out/],
  ['an edge in clear', { clear: { field: 'price', op: 'crosses_below', value: 1 } }, 'clear.op', /no place in clear/],
  ['a change over no time', { when: { field: 'price', change: '0s', op: 'gt', value: 5 } }, 'when.change', /must be a duration/],
  ['an absence without a time', { when: { absent_for: 'long' } }, 'when.absent_for', /must be a duration like 30s/],
  ['a text that is no condition', { when: 'price >' }, 'when', /line 1, column 8: the text ends/],
  ['a column in a text that is not there', { when: 'prise > 3000' }, 'when', /did you mean price\?/],
  ['a duration without unit', { for: '30' }, 'for', /a duration like 30s/],
  ['a duration as a number', { for: 30 }, 'for', /a duration like 30s/],
  ['a part of a second', { for: '1500ms' }, 'for', /whole seconds/],
  ['a time beyond reason', { cooldown: '9999d' }, 'cooldown', /up to 366d/],
  ['a severity that is not there', { severity: 'high' }, 'severity', /must be one of info, warning, critical/],
  ['enabled as text', { enabled: 'yes' }, 'enabled', /true or false/],
  ['match without a list', { match: { chain: 'base' } }, 'match.chain', /must be a list/],
  ['match on a column that is not there', { match: { chainn: ['base'] } }, 'match.chainn', /did you mean chain\?/],
  ['match with a value that is not of the type', { match: { price: ['high'] } }, 'match.price[0]', /must be a number/],
  ['groupBy with a column that is not there', { groupBy: ['tokenid'] }, 'groupBy[0]', /did you mean token_id\?/],
  ['groupBy with a column twice', { groupBy: ['chain', 'chain'] }, 'groupBy[1]', /already/],
  ['an empty groupBy', { groupBy: [] }, 'groupBy', /must be a list/],
  ['a member that is not there', { treshold: 5 }, 'treshold', /no member of a rule/],
  ['channels that are no list', { channels: { type: 'push' } }, 'channels', /must be a list/],
  ['more channels than anybody reads', { channels: Array.from({ length: 11 }, () => ({ type: 'push' })) }, 'channels', /more than the 10/],
  ['a channel of no type', { channels: [{ url: 'https://example.com' }] }, 'channels[0].type', /must be one of webhook, email, push/],
  ['a channel of a type that is not there', { channels: [{ type: 'webhok' }] }, 'channels[0].type', /did you mean webhook\?/],
  ['a webhook without URL', { channels: [{ type: 'webhook' }] }, 'channels[0].url', /is missing/],
  ['a webhook that is no URL', { channels: [{ type: 'webhook', url: 'example.com' }] }, 'channels[0].url', /must be a URL like https:/],
  ['a webhook without TLS', { channels: [{ type: 'webhook', url: 'http://example.com/' }] }, 'channels[0].url', /https/],
  ['a webhook into this machine', { channels: [{ type: 'webhook', url: 'https://127.0.0.1/' }] }, 'channels[0].url', /loopback/],
  [
    'a webhook into this machine, by name',
    { channels: [{ type: 'webhook', url: 'https://localhost:8080/' }] },
    'channels[0].url',
    /localhost/,
  ],
  [
    'a webhook to where clouds tell secrets',
    { channels: [{ type: 'webhook', url: 'https://169.254.169.254/latest' }] },
    'channels[0].url',
    /metadata/,
  ],
  ['a webhook in octal', { channels: [{ type: 'webhook', url: 'https://0177.0.0.1/' }] }, 'channels[0].url', /loopback/],
  [
    'a webhook with a password',
    { channels: [{ type: 'webhook', url: 'https://a:b@example.com/' }] },
    'channels[0].url',
    /user name or (?:a )?password/,
  ],
  [
    'a secret that is too short',
    { channels: [{ type: 'webhook', url: 'https://example.com/', secret: 'whsec_c2hvcnQ=' }] },
    'channels[0].secret',
    /24 to 64 bytes/,
  ],
  ['a secret for email', { channels: [{ type: 'email', to: 'a@example.com', secret: 'x' }] }, 'channels[0].secret', /no member/],
  ['an email without address', { channels: [{ type: 'email' }] }, 'channels[0].to', /is missing/],
  [
    'an email to a list',
    { channels: [{ type: 'email', to: 'a@example.com,b@example.com' }] },
    'channels[0].to',
    /one email address, not a list/,
  ],
  [
    'an email with a header in it',
    { channels: [{ type: 'email', to: 'a@example.com\r\nBcc: b@example.com' }] },
    'channels[0].to',
    /one plain email address/,
  ],
];

describe('faults of a rule', function () {
  this.timeout(120_000);
  let rest: Rest;
  before(async () => {
    rest = await startRest();
    await rest.sql(`
      CREATE SCHEMA audit;
      CREATE TABLE audit.events (id int PRIMARY KEY);
      CREATE VIEW public.expensive AS SELECT * FROM public.prices WHERE price > 1000;
      CREATE UNLOGGED TABLE public.scratch (id int PRIMARY KEY);
      CREATE TABLE public.keyless (n int);
      CREATE TABLE public.full_identity (n int);
      ALTER TABLE public.full_identity REPLICA IDENTITY FULL;
      CREATE TABLE public.parted (id int PRIMARY KEY) PARTITION BY RANGE (id);
      CREATE TABLE public.parted_1 PARTITION OF public.parted FOR VALUES FROM (0) TO (10);
      CREATE TABLE public.hidden (id int PRIMARY KEY, secret text, n int, twice int GENERATED ALWAYS AS (n * 2) STORED);
      CREATE PUBLICATION headwater FOR TABLE public.prices, public.tvl, public.parted, public.hidden, public.full_identity;
      CREATE TABLE public.young (id int PRIMARY KEY)`);
  });
  after(() => rest?.close());

  for (const [what, changes, field, message] of cases) {
    it(`${what}: ${field}`, async () => {
      const answer = await rest.call('POST', path, rule(changes));
      expect(answer.status, answer.text).to.equal(400);
      expect(answer.error.code).to.equal('bad_request');
      expect(answer.error.field, answer.text).to.equal(field);
      expect(answer.error.message.slice(field.length + 1)).to.match(message);
      expect(answer.error.message.startsWith(`${field} `), answer.error.message).to.equal(true);
    });
  }

  it('all that is wrong is said at once', async () => {
    const answer = await rest.call('POST', path, {
      name: '',
      table: 'public.prices',
      when: {
        and: [
          { field: 'prise', op: 'gt', value: 1 },
          { field: 'price', op: 'gt', value: 'x' },
        ],
      },
      for: 'soon',
      channels: [{ type: 'webhook', url: 'https://10.0.0.1/' }],
    });
    expect(answer.status).to.equal(400);
    const fields = answer.error.faults!.map((fault) => (fault as { field: string }).field);
    expect(fields).to.have.members(['name', 'when.and[0].field', 'when.and[1].value', 'for', 'channels[0].url']);
    expect(answer.error.field).to.equal(fields[0]);
  });

  it('a partitioned table, one with an own identity, and one with hidden columns can have rules', async () => {
    for (const body of [
      rule({ table: 'public.parted', when: { field: 'id', op: 'gt', value: 1 } }),
      rule({ table: 'public.full_identity', when: { field: 'n', op: 'gt', value: 1 }, groupBy: ['n'] }),
      rule({ table: 'public.hidden', when: { field: 'n', op: 'gt', value: 1 } }),
      rule({ when: 'price > 3000 AND chain = "base"' }),
    ]) {
      const answer = await rest.call('POST', path, body);
      expect(answer.status, answer.text).to.equal(201);
    }
  });

  it('a column of a domain is judged by its base type', async () => {
    await rest.sql(`CREATE DOMAIN public.wei AS numeric(78,0); CREATE DOMAIN public.balance AS public.wei;
      CREATE TABLE public.accounts (id int PRIMARY KEY, held public.balance); ALTER PUBLICATION headwater ADD TABLE public.accounts`);
    const answer = await rest.call('POST', path, rule({ table: 'public.accounts', when: 'held > "much"' }));
    expect(answer.error.message).to.match(/must be a number \(held is numeric\(78,0\)\)$/);
  });

  it('a fault of PUT and PATCH leaves the rule as it is', async () => {
    const { body } = await rest.call('POST', path, rule());
    for (const method of ['PUT', 'PATCH']) {
      const answer = await rest.call(method, `${path}/${body.id}`, rule({ when: { field: 'prise', op: 'gt', value: 1 } }));
      expect([answer.status, answer.error.field]).to.deep.equal([400, 'when.field']);
    }
    expect((await rest.call('GET', `${path}/${body.id}`)).body).to.deep.equal(body);
  });

  it('a fault in the rule of a test names it there', async () => {
    const answer = await rest.call('POST', `${path}/test`, { rule: rule({ for: 'soon' }) });
    expect([answer.status, answer.error.field]).to.deep.equal([400, 'rule.for']);
  });
});
