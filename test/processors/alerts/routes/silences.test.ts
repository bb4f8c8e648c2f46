import { expect } from 'chai';
import { rule, startRest, type Rest } from './support/rest.ts';

const path = '/v2/silences';
const [tomorrow, later] = [1, 2].map((days) => new Date(Date.now() + days * 86_400_000).toISOString());
const yesterday = new Date(Date.now() - 86_400_000).toISOString();

describe(path, function () {
  this.timeout(120_000);
  let rest: Rest;
  let ruleId: string;
  before(async () => {
    rest = await startRest();
    ruleId = (await rest.call('POST', '/v2/alert-rules', rule())).body.id;
  });
  after(() => rest?.close());
  beforeEach(() => rest.sql('DELETE FROM headwater.silences'));

  it('is made, read, changed and ended', async () => {
    const body = {
      ruleId,
      match: { token_id: ['ethereum:0xc02a'], chain: ['ethereum', 'base'] },
      comment: 'maintenance',
      endsAt: tomorrow,
    };
    const made = await rest.call('POST', path, body);
    expect(made.status, made.text).to.equal(201);
    expect(made.headers.get('location')).to.equal(`${path}/${made.body.id}`);
    expect(made.body).to.deep.include({ ruleId, match: body.match, comment: 'maintenance', userId: 'ann' });
    expect(Date.parse(made.body['endsAt'] as string)).to.equal(Date.parse(tomorrow!));
    expect(Math.abs(Date.parse(made.body['startsAt'] as string) - Date.now())).to.be.lessThan(60_000);
    expect((await rest.call('GET', `${path}/${made.body.id}`)).body).to.deep.equal(made.body);
    // Its start stays, also where a PUT names none.
    const put = await rest.call('PUT', `${path}/${made.body.id}`, { endsAt: later });
    expect(put.body).to.deep.include({ match: {}, startsAt: made.body['startsAt'] });
    expect(put.body).not.to.have.any.keys('ruleId', 'comment');
    const patch = await rest.call('PATCH', `${path}/${made.body.id}`, { ruleId, comment: 'x' });
    expect(patch.body).to.deep.include({ ruleId, comment: 'x', match: {} });
    expect((await rest.call('PATCH', `${path}/${made.body.id}`, { ruleId: null })).body).not.to.have.property('ruleId');
    expect((await rest.call('PUT', `${path}/${made.body.id}`, put.body)).status).to.equal(200);
    expect((await rest.call('DELETE', `${path}/${made.body.id}`)).status).to.equal(204);
    expect((await rest.call('GET', `${path}/${made.body.id}`)).status).to.equal(404);
    expect((await rest.call('DELETE', `${path}/${made.body.id}`)).status).to.equal(404);
  });

  it('can be changed when its rule is gone', async () => {
    const gone = (await rest.call('POST', '/v2/alert-rules', rule())).body.id;
    const { body } = await rest.call('POST', path, { ruleId: gone, endsAt: later });
    expect((await rest.call('DELETE', `/v2/alert-rules/${gone}`)).status).to.equal(204);
    const patch = await rest.call('PATCH', `${path}/${body.id}`, { endsAt: tomorrow });
    expect(patch.status, patch.text).to.equal(200);
    expect((await rest.call('PUT', `${path}/${body.id}`, patch.body)).status).to.equal(200);
    expect((await rest.call('POST', path, { ruleId: gone, endsAt: later })).error.field).to.equal('ruleId');
  });

  it('the list has the newest first, in pages, and those that hold now when asked', async () => {
    for (let i = 0; i < 5; i++) await rest.call('POST', path, { comment: `s${i}`, endsAt: tomorrow, ...(i === 0 && { ruleId }) });
    await rest.sql(
      `INSERT INTO headwater.silences (user_id, comment, starts_at, ends_at) VALUES ('ann', 'over', now() - interval '2 days', now() - interval '1 day')`,
    );
    const first = await rest.call('GET', `${path}?limit=4`);
    const second = await rest.call('GET', `${path}?limit=4&cursor=${first.body.next}`);
    expect([...first.body.items, ...second.body.items].map(({ comment }) => comment)).to.deep.equal(['over', 's4', 's3', 's2', 's1', 's0']);
    const active = await rest.call('GET', `${path}?active=true`);
    expect(active.body.items.map(({ comment }) => comment)).to.deep.equal(['s4', 's3', 's2', 's1', 's0']);
    expect((await rest.call('GET', `${path}?active=false`)).body.items.map(({ comment }) => comment)).to.deep.equal(['over']);
    expect((await rest.call('GET', `${path}?ruleId=${ruleId}`)).body.items).to.have.length(1);
  });

  const faults: [string, object, string, RegExp][] = [
    ['no end', {}, 'endsAt', /is missing/],
    ['an end without zone', { endsAt: '2030-01-01T00:00:00' }, 'endsAt', /with its zone/],
    ['a day that is none', { endsAt: '2030-02-30T00:00:00Z' }, 'endsAt', /must be a time/],
    ['an end in the past', { endsAt: yesterday }, 'endsAt', /is over already/],
    ['an end before the start', { startsAt: later, endsAt: tomorrow }, 'endsAt', /after the start/],
    ['a start that is no time', { startsAt: 'now', endsAt: tomorrow }, 'startsAt', /must be a time/],
    ['a rule that is not there', { ruleId: '4b5c5f0e-8f0c-4a5e-9a51-2f6f3a9d7c10', endsAt: tomorrow }, 'ruleId', /no rule of yours/],
    ['a rule that is no id', { ruleId: 7, endsAt: tomorrow }, 'ruleId', /id of a rule/],
    ['match without lists', { match: { chain: 'base' }, endsAt: tomorrow }, 'match.chain', /must be a list/],
    ['match that is no object', { match: ['base'], endsAt: tomorrow }, 'match', /must be an object/],
    ['a comment that is a book', { comment: 'x'.repeat(1_001), endsAt: tomorrow }, 'comment', /1000 characters/],
    ['a member that is not there', { endAt: tomorrow }, 'endAt', /did you mean endsAt/],
  ];
  for (const [what, body, field, message] of faults) {
    it(`${what}: ${field}`, async () => {
      const answer = await rest.call('POST', path, body);
      expect([answer.status, answer.error.field], answer.text).to.deep.equal([400, field]);
      expect(answer.error.message).to.match(message);
    });
  }

  it('another’s silence, and a silence of another’s rule, are not there', async () => {
    const { id } = (await rest.call('POST', path, { endsAt: tomorrow })).body;
    for (const [method, body] of [['GET'], ['PUT', { endsAt: later }], ['PATCH', { endsAt: later }], ['DELETE']] as [string, object?][])
      expect((await rest.call(method, `${path}/${id}`, body, { as: 'bob' })).status, method).to.equal(404);
    expect((await rest.call('GET', path, undefined, { as: 'bob' })).body.items).to.deep.equal([]);
    const answer = await rest.call('POST', path, { ruleId, endsAt: tomorrow }, { as: 'bob' });
    expect([answer.status, answer.error.field]).to.deep.equal([400, 'ruleId']);
  });
});
