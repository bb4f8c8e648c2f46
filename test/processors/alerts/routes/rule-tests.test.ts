import { expect } from 'chai';
import type { NewEvent } from '../../../../pipeline/log/event-log.ts';
import { idText } from '../../../support/row-events.ts';
import { rule, startRest, type Answer, type Rest } from './support/rest.ts';

const path = '/v2/alert-rules/test';
const start = Date.UTC(2026, 10, 22);

describe(`POST ${path}`, function () {
  this.timeout(120_000);
  let rest: Rest;
  let lsn = 0;

  before(async () => {
    rest = await startRest();
  });
  after(() => rest?.close());

  const at = (second: number): string => new Date(start + second * 1_000).toISOString().replace('Z', '000Z');
  function head(second: number): object {
    return { v: 1, id: idText(++lsn), at: at(second) };
  }
  /** A row of prices at a second. */
  function price(second: number, value: number | string, token = 'eth', op = 'update'): NewEvent {
    const { at: time, ...ids } = head(second) as { at: string };
    const after = { token_id: token, symbol: 'ETH', chain: 'ethereum', price: String(value) };
    const event = { ...ids, type: 'price_update', op, table: 'public.prices', key: { token_id: token }, after, at: time };
    return { subject: `${rest.log.subject}.public.prices.${op}`, data: Buffer.from(JSON.stringify(event)) };
  }
  function tick(second: number): NewEvent {
    const event = { ...(head(second) as Record<string, unknown>), type: 'tick' };
    return { subject: `${rest.log.subject}._tick`, data: Buffer.from(JSON.stringify(event)) };
  }
  function other(second: number): NewEvent {
    const event = {
      ...(head(second) as Record<string, unknown>),
      type: 'row',
      op: 'insert',
      table: 'public.tvl',
      key: { id: lsn },
      after: { id: lsn },
    };
    return { subject: `${rest.log.subject}.public.tvl.insert`, data: Buffer.from(JSON.stringify(event)) };
  }
  /** Appends, and gives the sequence of the first. */
  async function append(...events: readonly NewEvent[]): Promise<number> {
    const { last } = await rest.log.log.bounds();
    for (let i = 0; i < events.length; i += 900) {
      const end = (await rest.log.log.bounds()).last;
      await rest.log.log.append(events.slice(i, i + 900), end);
    }
    return last + 1;
  }
  async function run(body: object): Promise<Answer> {
    const answer = await rest.call('POST', path, body);
    expect(answer.status, answer.text).to.equal(200);
    return answer;
  }

  it('says so when there is nothing of the table in the log', async () => {
    expect((await run({ rule: rule() })).body).to.deep.equal({ alerts: [], pending: 0, events: { count: 0, complete: true } });
  });

  it('gives the reference timeline, with sequences and times, and writes nothing', async () => {
    const seq = await append(...[75, 85, 70, 70, 10, 10].map((value, minute) => price(minute * 60, value)), price(600, 75), price(660, 10));
    const reference = rule({ when: { field: 'price', op: 'gt', value: 50 }, for: '1m', keepFiringFor: '1m', severity: 'critical' });
    const { body } = await run({ rule: reference });
    expect(body['alerts']).to.deep.equal([
      {
        entity: { token_id: 'eth' },
        severity: 'critical',
        state: 'resolved',
        value: '85',
        firedAt: at(60),
        firedSeq: seq + 1,
        resolvedAt: at(300),
        resolvedSeq: seq + 5,
        reason: 'condition',
      },
    ]);
    expect(body['events']).to.deep.equal({ count: 8, firstSeq: seq, lastSeq: seq + 7, complete: true });
    for (const table of ['alert_rules', 'alert_history', 'alert_outbox', 'notification_jobs'])
      expect(await rest.sql(`SELECT FROM headwater.${table}`), table).to.deep.equal([]);
    const made = await rest.call('POST', '/v2/alert-rules', { ...reference, enabled: false });
    expect((await run({ id: made.body.id })).body).to.deep.equal(body);
    await rest.call('DELETE', `/v2/alert-rules/${made.body.id}`);
  });

  it('lets time pass between the table’s events, and after the last, as far as it matters', async () => {
    const seconds = Array.from({ length: 300 }, (_, i) => i + 1);
    const seq = await append(price(1_000, 60, 'base'), ...seconds.map((n) => (n % 3 === 0 ? other(1_000 + n) : tick(1_000 + n))));
    const level = await run({ rule: rule({ match: { token_id: ['base'] }, when: { field: 'price', op: 'gt', value: 50 }, for: '10s' }) });
    // The first tick at or after the tenth second.
    expect(level.body['alerts']).to.have.length(1);
    expect((level.body['alerts'] as object[])[0]).to.include({ state: 'firing', firedAt: at(1_010), firedSeq: seq + 10 });
    const absent = await run({ rule: rule({ match: { token_id: ['base'] }, when: { absent_for: '1m' } }) });
    expect((absent.body['alerts'] as object[])[0]).to.include({ state: 'firing', firedAt: at(1_061), firedSeq: seq + 61 });
    const waiting = await run({ rule: rule({ match: { token_id: ['base'] }, when: { field: 'price', op: 'gt', value: 50 }, for: '1h' }) });
    expect([waiting.body['alerts'], waiting.body['pending']]).to.deep.equal([[], 1]);
  });

  it('looks at the newest events only, and finds them however far back they are', async () => {
    const first = await append(...Array.from({ length: 30 }, (_, n) => price(2_000 + n, n % 2 === 0 ? 10 : 90, 'far')));
    await append(...Array.from({ length: 9_000 }, (_, n) => other(2_100 + n)));
    const last = await append(price(12_000, 10, 'far'));
    const crossing = rule({ match: { token_id: ['far'] }, when: { field: 'price', op: 'crosses_above', value: 50 } });
    const all = (await run({ rule: crossing })).body;
    expect(all['alerts']).to.have.length(15);
    expect(all['events']).to.deep.include({ lastSeq: last, complete: true });
    const some = (await run({ rule: crossing, events: 11 })).body;
    expect(some['events']).to.deep.equal({ count: 11, firstSeq: first + 20, lastSeq: last, complete: true });
    expect((some['alerts'] as { firedSeq: number }[]).map(({ firedSeq }) => firedSeq)).to.deep.equal(
      [21, 23, 25, 27, 29].map((n) => first + n),
    );
  });

  it('tests of one owner come one after the other', async () => {
    // Enough of them that a test takes its time: they are read and evaluated.
    await append(...Array.from({ length: 9_000 }, (_, n) => price(20_000 + n, 1, 'busy')));
    const asked = (as: 'ann' | 'bob'): Promise<Answer> => rest.call('POST', path, { rule: rule(), events: 10_000 }, { as });
    const [bob, ...answers] = await Promise.all([asked('bob'), asked('ann'), asked('ann'), asked('ann')]);
    expect(bob.status).to.equal(200);
    const refused = answers.filter(({ status }) => status !== 200);
    expect(refused.length).to.be.within(1, 2);
    for (const answer of refused) {
      expect([answer.status, answer.error.code, answer.headers.get('retry-after')]).to.deep.equal([429, 'rate_limited', '1']);
    }
    expect((await rest.call('POST', path, { rule: rule() })).status).to.equal(200);
  });

  it('without events only judges the rule', async () => {
    expect((await run({ rule: rule(), events: 0 })).body).to.deep.equal({ alerts: [], pending: 0, events: { count: 0, complete: true } });
  });

  const faults: [string, object, string][] = [
    ['neither a rule nor an id', {}, 'rule'],
    ['both', { rule: rule(), id: '4b5c5f0e-8f0c-4a5e-9a51-2f6f3a9d7c10' }, 'rule'],
    ['a rule that is a text', { rule: 'price > 5' }, 'rule'],
    ['fewer than no events', { rule: rule(), events: -1 }, 'events'],
    ['a rule that is not valid, judged alone', { rule: rule({ when: 'prise > 1' }), events: 0 }, 'rule.when'],
    ['too many events', { rule: rule(), events: 10_001 }, 'events'],
    ['half an event', { rule: rule(), events: 1.5 }, 'events'],
    ['a member that is not there', { rule: rule(), event: 5 }, 'event'],
    ['a rule that is not valid', { rule: rule({ when: 'prise > 1' }) }, 'rule.when'],
  ];
  for (const [what, body, field] of faults) {
    it(`${what}: ${field}`, async () => {
      const answer = await rest.call('POST', path, body);
      expect(answer.status, answer.text).to.equal(400);
      expect(answer.error.field).to.match(new RegExp(`^${field.replace('.', '\\.')}`));
    });
  }

  it('a rule that is not there: 404', async () => {
    for (const id of ['4b5c5f0e-8f0c-4a5e-9a51-2f6f3a9d7c10', 'x', 7]) expect((await rest.call('POST', path, { id })).status).to.equal(404);
  });
});
