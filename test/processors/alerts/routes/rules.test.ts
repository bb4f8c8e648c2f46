import { expect } from 'chai';
import { rule, startRest, type Rest } from './support/rest.ts';

const path = '/v2/alert-rules';
const missing = '4b5c5f0e-8f0c-4a5e-9a51-2f6f3a9d7c10';

describe('/v2/alert-rules', function () {
  this.timeout(120_000);
  let rest: Rest;
  before(async () => {
    rest = await startRest();
  });
  after(() => rest?.close());
  beforeEach(() => rest.sql('DELETE FROM headwater.alert_rules'));

  async function made(changes: Record<string, unknown> = {}, as: 'ann' | 'bob' = 'ann'): Promise<Record<string, unknown> & { id: string }> {
    const answer = await rest.call('POST', path, rule(changes), { as });
    expect(answer.status, answer.text).to.equal(201);
    return answer.body;
  }

  it('a rule is made with its defaults, found where Location says, and stored as the log will have it', async () => {
    const answer = await rest.call('POST', path, rule({ for: '90s', match: { chain: ['ethereum'] }, groupBy: ['symbol'] }));
    expect(answer.status, answer.text).to.equal(201);
    expect(answer.headers.get('location')).to.equal(`${path}/${answer.body.id}`);
    expect(answer.headers.get('etag')).to.equal('"1"');
    const { id, createdAt, updatedAt, ...rest_ } = answer.body;
    expect(rest_).to.deep.equal({
      revision: 1,
      userId: 'ann',
      name: 'ETH above 3000',
      table: 'public.prices',
      match: { chain: ['ethereum'] },
      groupBy: ['symbol'],
      when: { field: 'price', op: 'gt', value: '3000' },
      for: '90s',
      keepFiringFor: '0s',
      cooldown: '0s',
      severity: 'info',
      channels: [],
      enabled: true,
    });
    expect([createdAt, updatedAt].join()).to.match(/^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z,?){2}$/);
    const got = await rest.call('GET', answer.headers.get('location')!);
    expect(got.body).to.deep.equal(answer.body);
    const [row] = await rest.sql('SELECT user_id, for_seconds, condition, group_by FROM headwater.alert_rules WHERE id = $1', [id]);
    expect(row).to.deep.equal({
      user_id: 'ann',
      for_seconds: 90,
      condition: { field: 'price', op: 'gt', value: '3000' },
      group_by: ['symbol'],
    });
  });

  it('what was read can be sent back, and changes nothing: neither revision nor time', async () => {
    const before = await made({
      clear: { field: 'price', op: 'lt', value: '2900' },
      channels: [{ type: 'webhook', url: 'https://example.com/h' }],
    });
    const read = await rest.call('GET', `${path}/${before.id}`);
    for (const method of ['PUT', 'PATCH']) {
      const answer = await rest.call(method, `${path}/${before.id}`, read.body, { headers: { 'if-match': '"1"' } });
      expect(answer.status, answer.text).to.equal(200);
      expect(answer.body).to.deep.equal(read.body);
      expect(answer.headers.get('etag')).to.equal('"1"');
    }
  });

  it('PUT replaces the rule, PATCH the members it names; null takes one away', async () => {
    const { id } = await made({ severity: 'critical', for: '5m', clear: { field: 'price', op: 'lt', value: 1 } });
    const put = await rest.call('PUT', `${path}/${id}`, rule({ name: 'other', clear: { field: 'price', op: 'lt', value: 2 } }));
    expect(put.body).to.include({ name: 'other', severity: 'info', for: '0s', revision: 2 });
    const when = {
      and: [
        { field: 'price', op: 'gt', value: 5 },
        { field: 'chain', op: 'eq', value: 'base' },
      ],
    };
    const patch = await rest.call('PATCH', `${path}/${id}`, { when, clear: null, keepFiringFor: '1h' });
    expect(patch.body).to.deep.include({ name: 'other', when, keepFiringFor: '1h', revision: 3 });
    expect(patch.body).not.to.have.property('clear');
    expect(patch.headers.get('etag')).to.equal('"3"');
    const bad = await rest.call('PATCH', `${path}/${id}`, { name: null });
    expect(bad.status).to.equal(400);
    expect(bad.error).to.include({ field: 'name' });
  });

  it('If-Match keeps two people from undoing each other’s work', async () => {
    const { id } = await made();
    const change = (name: string, tag: string): Promise<number> =>
      rest.call('PATCH', `${path}/${id}`, { name }, { headers: { 'if-match': tag } }).then(({ status }) => status);
    expect(await change('a', '"1"')).to.equal(200);
    expect(await change('b', '"1"')).to.equal(412);
    expect(await change('b', 'W/"2"')).to.equal(412);
    expect(await change('c', '"7", "2"')).to.equal(200);
    expect(await change('d', '*')).to.equal(200);
    expect(await change('e', '4')).to.equal(400);
    const stale = await rest.call('DELETE', `${path}/${id}`, undefined, { headers: { 'if-match': '"3"' } });
    expect(stale.status).to.equal(412);
    expect(stale.error).to.include({ code: 'precondition_failed', field: 'If-Match' });
    expect(stale.error.message).to.include('"4"');
    const put = await rest.call('PUT', `${path}/${id}`, rule(), { headers: { 'if-match': '"3"' } });
    expect(put.status).to.equal(412);
    expect((await rest.call('DELETE', `${path}/${id}`, undefined, { headers: { 'if-match': '"4"' } })).status).to.equal(204);
    expect((await rest.call('GET', `${path}/${id}`)).status).to.equal(404);
  });

  it('a rule can be disabled also when its table has changed so that it could not be made any more', async () => {
    await rest.sql('CREATE TABLE public.changing (id int PRIMARY KEY, n int)');
    const { id } = await made({ table: 'public.changing', when: 'n > 1', channels: [{ type: 'webhook', url: 'https://example.com/h' }] });
    const [before] = await rest.sql('SELECT * FROM headwater.alert_rules WHERE id = $1', [id]);
    await rest.sql('ALTER TABLE public.changing DROP COLUMN n');
    expect((await rest.call('PATCH', `${path}/${id}`, { enabled: true })).error.field).to.equal('when.field');
    const disabled = await rest.call('PATCH', `${path}/${id}`, { enabled: false });
    expect([disabled.status, disabled.body['enabled'], disabled.body['revision']], disabled.text).to.deep.equal([200, false, 2]);
    const [after] = await rest.sql('SELECT * FROM headwater.alert_rules WHERE id = $1', [id]);
    expect({ ...after, enabled: true, revision: 1, updated_at: before!['updated_at'] }).to.deep.equal(before);
  });

  it('an ETag that a proxy has weakened is no other revision, and the answer says so', async () => {
    const { id } = await made();
    const answer = await rest.call('PATCH', `${path}/${id}`, { enabled: false }, { headers: { 'if-match': 'W/"1"' } });
    expect([answer.status, answer.error.message]).to.deep.equal([412, 'If-Match takes the ETag without W/: "1"']);
  });

  it('changes at the same time all happen, one after the other', async () => {
    const { id } = await made();
    const changes = [{ name: 'x' }, { severity: 'critical' }, { for: '1m' }];
    const answers = await Promise.all(changes.map((change) => rest.call('PATCH', `${path}/${id}`, change)));
    expect(answers.map(({ status }) => status)).to.deep.equal([200, 200, 200]);
    expect((await rest.call('GET', `${path}/${id}`)).body).to.include({ name: 'x', severity: 'critical', for: '1m', revision: 4 });
  });

  it('If-None-Match spares who has the rule already', async () => {
    const { id } = await made();
    for (const tag of ['"1"', 'W/"1"', '"0", "1"', '*']) {
      const answer = await rest.call('GET', `${path}/${id}`, undefined, { headers: { 'if-none-match': tag } });
      expect([answer.status, answer.text, answer.headers.get('etag')], tag).to.deep.equal([304, '', '"1"']);
    }
    expect((await rest.call('GET', `${path}/${id}`, undefined, { headers: { 'if-none-match': '"2"' } })).status).to.equal(200);
  });

  it('the list comes in pages, each rule once, while others are made', async () => {
    for (let i = 0; i < 7; i++) await made({ name: `r${i}`, enabled: i % 2 === 0 });
    const names: unknown[] = [];
    let page = await rest.call('GET', `${path}?limit=3`);
    for (;;) {
      names.push(...page.body.items.map(({ name }) => name));
      if (page.body.next === null) break;
      await made({ name: `late${names.length}`, enabled: false });
      page = await rest.call('GET', `${path}?limit=3&cursor=${page.body.next}`);
    }
    expect(names).to.deep.equal(['r0', 'r1', 'r2', 'r3', 'r4', 'r5', 'r6', 'late3', 'late6']);
    const enabled = await rest.call('GET', `${path}?enabled=true&table=public.prices`);
    expect(enabled.body.items.map(({ name }) => name)).to.deep.equal(['r0', 'r2', 'r4', 'r6']);
    expect((await rest.call('GET', `${path}?name=r3`)).body.items).to.have.length(1);
    expect((await rest.call('GET', `${path}?table=public.tvl`)).body).to.deep.equal({ items: [], next: null });
  });

  it('a cursor is of its owner, its list and its filters', async () => {
    for (const name of ['a', 'b', 'c']) {
      await made({ name });
      await made({ name }, 'bob');
    }
    const { next } = (await rest.call('GET', `${path}?limit=1`)).body;
    const refused = [
      await rest.call('GET', `${path}?limit=1&cursor=${next}`, undefined, { as: 'bob' }),
      await rest.call('GET', `${path}?limit=1&cursor=${next}&enabled=true`),
      await rest.call('GET', `/v2/silences?limit=1&cursor=${next}`),
      await rest.call('GET', `${path}?cursor=xyz`),
      await rest.call('GET', `${path}?cursor=${Buffer.from("a 2026-01-01T00:00:00.000000Z ' OR 1=1").toString('base64url')}`),
    ];
    for (const answer of refused) expect([answer.status, answer.error.field], answer.text).to.deep.equal([400, 'cursor']);
    // Another limit is no other list.
    expect((await rest.call('GET', `${path}?limit=2&cursor=${next}`)).body.items.map(({ name }) => name)).to.deep.equal(['b', 'c']);
  });

  it('parameters that are not known, not valid or given twice are refused by name', async () => {
    const cases: [string, string][] = [
      ['limit=0', 'limit'],
      ['limit=201', 'limit'],
      ['limit=ten', 'limit'],
      ['enabled=yes', 'enabled'],
      ['limit=1&limit=2', 'limit'],
      ['tabel=public.prices', 'tabel'],
      ['name=%00', 'name'],
    ];
    for (const [query, field] of cases) {
      const answer = await rest.call('GET', `${path}?${query}`);
      expect([answer.status, answer.error.field], query).to.deep.equal([400, field]);
    }
    expect((await rest.call('GET', `${path}?enable=x`)).error.message).to.include('did you mean enabled?');
    expect((await rest.call('GET', '/v2/alerts?chain=base')).error.message).to.match(/; there are limit, .*, entity\.<column>$/);
  });

  it('another’s rule is not there: not to read, change, delete, rotate or test', async () => {
    const { id } = await made({ channels: [{ type: 'webhook', url: 'https://example.com/h' }] });
    const attempts: [string, string, unknown?][] = [
      ['GET', `${path}/${id}`],
      ['PUT', `${path}/${id}`, rule()],
      ['PATCH', `${path}/${id}`, { name: 'mine' }],
      ['DELETE', `${path}/${id}`],
      ['POST', `${path}/${id}/channels/0/rotate-secret`],
      ['POST', `${path}/test`, { id }],
    ];
    for (const as of ['bob', 'root'] as const) {
      for (const [method, target, body] of attempts) {
        const answer = await rest.call(method, target, body, { as });
        expect([answer.status, answer.error.code], `${as}: ${method} ${target}`).to.deep.equal([404, 'not_found']);
      }
      expect((await rest.call('GET', path, undefined, { as })).body.items).to.deep.equal([]);
    }
    expect((await rest.call('GET', `${path}/${id}`)).body).to.include({ name: 'ETH above 3000', revision: 1 });
    for (const unknown of [missing, 'x', '1', "'; DROP TABLE headwater.alert_rules; --", '%00', 'ü'.repeat(30)])
      expect((await rest.call('GET', `${path}/${encodeURIComponent(unknown)}`)).status, unknown).to.equal(404);
  });

  it('a key without the scope is told which it needs', async () => {
    for (const [method, target] of [
      ['GET', path],
      ['POST', path],
      ['GET', '/v2/alerts'],
      ['GET', '/v2/silences'],
      ['GET', '/v2/push/key'],
    ] as const) {
      const answer = await rest.call(method, target, method === 'POST' ? rule() : undefined, { as: 'guest' });
      expect([answer.status, answer.error.code]).to.deep.equal([403, 'forbidden']);
      expect(answer.error.message).to.include('alerts or admin');
    }
    expect((await rest.call('GET', path, undefined, { as: 'root' })).status).to.equal(200);
  });

  describe('webhook secrets', () => {
    const hook = { type: 'webhook', url: 'https://example.com/hook' };
    const given = `whsec_${Buffer.alloc(32, 7).toString('base64')}`;
    interface Hook {
      readonly secret?: string;
      readonly secretHint?: string;
      readonly previousSecretUntil?: string;
    }
    const hooks = (body: Record<string, unknown>): Hook[] => body['channels'] as Hook[];
    const stored = async (id: string): Promise<Record<string, string>[]> =>
      (await rest.sql('SELECT channels FROM headwater.alert_rules WHERE id = $1', [id]))[0]!['channels'] as Record<string, string>[];

    it('one is made where none is given, shown in that answer and never again', async () => {
      const answer = await rest.call('POST', path, rule({ channels: [hook, { ...hook, secret: given }] }));
      const [first, second] = hooks(answer.body);
      expect(first!.secret).to.match(/^whsec_[A-Za-z0-9+/]{43}=$/);
      expect(first!.secretHint).to.equal(`…${first!.secret!.slice(-4)}`);
      expect(second).to.deep.equal({ ...hook, secretHint: `…${given.slice(-4)}` });
      expect(answer.headers.get('cache-control')).to.equal('no-store');
      for (const target of [`${path}/${answer.body.id}`, path]) {
        const { text } = await rest.call('GET', target);
        expect(text).not.to.include('whsec_').and.not.include('"secret"');
      }
      expect((await stored(answer.body.id)).map(({ secret }) => secret)).to.deep.equal([first!.secret, given]);
    });

    it('an update that leaves it out keeps it, by URL', async () => {
      const { body } = await rest.call('POST', path, rule({ channels: [hook] }));
      const [{ secret }] = hooks(body) as [Hook];
      const channels = [{ type: 'push' }, { ...hook, url: 'https://example.com/second' }, hook];
      const changed = await rest.call('PATCH', `${path}/${body.id}`, { channels });
      expect(hooks(changed.body)[2]).to.deep.equal({ ...hook, secretHint: `…${secret!.slice(-4)}` });
      expect(hooks(changed.body)[1]!.secret)
        .to.match(/^whsec_/)
        .and.not.equal(secret);
      expect((await stored(body.id))[2]).to.deep.equal({ ...hook, secret });
    });

    it('rotation keeps the one before for a day', async () => {
      const { body } = await rest.call('POST', path, rule({ channels: [{ type: 'push' }, { ...hook, secret: given }] }));
      const rotated = await rest.call('POST', `${path}/${body.id}/channels/1/rotate-secret`);
      expect(rotated.status, rotated.text).to.equal(200);
      const shown = hooks(rotated.body)[1]!;
      expect(shown.secret).to.match(/^whsec_/);
      const hours = (Date.parse(shown.previousSecretUntil!) - Date.now()) / 3_600_000;
      expect(hours).to.be.within(23.9, 24);
      expect((await stored(body.id))[1]).to.deep.equal({
        ...hook,
        secret: shown.secret,
        previousSecret: given,
        previousUntil: shown.previousSecretUntil,
      });
      const replaced = await rest.call('PATCH', `${path}/${body.id}`, { channels: [{ ...hook, secret: given }] });
      expect((await stored(body.id))[0]).to.include({ secret: given, previousSecret: shown.secret });
      expect(replaced.text).not.to.include('whsec_');
      // Nothing of it shows once it is over.
      await rest.sql(`UPDATE headwater.alert_rules SET channels = jsonb_set(channels, '{0,previousUntil}', '"2020-01-01T00:00:00.000Z"')`);
      expect(hooks((await rest.call('GET', `${path}/${body.id}`)).body)[0]).to.have.keys('type', 'url', 'secretHint');
    });

    it('only a webhook has one to rotate', async () => {
      const { id } = await made({ channels: [{ type: 'push' }] });
      for (const n of ['0', '1', '-1', 'x', '99999999999999999999']) {
        const answer = await rest.call('POST', `${path}/${id}/channels/${n}/rotate-secret`);
        expect(answer.status, n).to.equal(404);
      }
    });
  });
});
