import { expect } from 'chai';
import { randomUUID } from 'node:crypto';
import { startRest, type Rest } from './support/rest.ts';

const path = '/v2/alerts';
const [ruleA, ruleB] = [randomUUID(), randomUUID()];
const event = '{"v": 1, "id": "0000000000000001.00000001", "after": {"big": 12345678901234567890123, "price": "3001"}}';

describe(path, function () {
  this.timeout(120_000);
  let rest: Rest;
  const ids: string[] = [];

  before(async () => {
    rest = await startRest();
    for (let i = 0; i < 7; i++) {
      const id = randomUUID();
      ids.unshift(id);
      const at = `2026-11-22T12:00:0${Math.floor(i / 2)}.123456Z`;
      const entity = { token_id: i % 2 === 0 ? 'ethereum:0xc02a' : 'base:0x42', n: i };
      await rest.sql(
        `INSERT INTO headwater.alert_history (id, rule_id, revision, user_id, entity, severity, state, value, fired_at, fired_seq, event, resolved_at, resolved_seq, reason)
         VALUES ($1, $2, 3, 'ann', $3, $4, $5, '3001', $6, $7, $8, $9, $10, $11)`,
        [
          id,
          i < 4 ? ruleA : ruleB,
          entity,
          i === 0 ? 'critical' : 'info',
          i === 6 ? 'firing' : 'resolved',
          at,
          100 + i,
          event,
          ...(i === 6 ? [null, null, null] : [at, 200 + i, 'condition']),
        ],
      );
    }
    await rest.sql(
      `INSERT INTO headwater.alert_history (id, rule_id, revision, user_id, entity, severity, state, fired_at, fired_seq)
       VALUES ($1, $2, 1, 'bob', '{}', 'info', 'firing', now(), 9)`,
      [randomUUID(), ruleA],
    );
  });
  after(() => rest?.close());

  const found = async (query: string): Promise<unknown[]> => {
    const answer = await rest.call('GET', `${path}?${query}`);
    expect(answer.status, answer.text).to.equal(200);
    return answer.body.items.map(({ firedSeq }) => firedSeq);
  };

  it('has the newest first, in pages that neither repeat nor skip alerts of one instant', async () => {
    const seen: unknown[] = [];
    let cursor = '';
    for (;;) {
      const { body } = await rest.call('GET', `${path}?limit=2${cursor}`);
      seen.push(...body.items.map(({ id }) => id));
      if (body.next === null) break;
      cursor = `&cursor=${body.next}`;
    }
    expect(seen).to.have.members(ids);
    expect(seen).to.have.length(7);
    const times = (await rest.call('GET', path)).body.items.map(({ firedAt }) => firedAt as string);
    expect(times).to.deep.equal([...times].sort().toReversed());
  });

  it('can be asked by rule, state, severity, time and entity', async () => {
    expect(await found(`ruleId=${ruleB}`)).to.have.members([104, 105, 106]);
    expect(await found('state=firing')).to.deep.equal([106]);
    expect(await found('severity=critical')).to.deep.equal([100]);
    expect(await found('from=2026-11-22T12:00:01.123456Z&to=2026-11-22T12:00:02.123456Z')).to.have.members([102, 103]);
    expect(await found('from=2026-11-22T13:00:01.123457%2B01:00')).to.have.members([104, 105, 106]);
    expect(await found('entity.token_id=base:0x42')).to.have.members([101, 103, 105]);
    expect(await found('entity.token_id=base:0x42&entity.n=3')).to.deep.equal([103]);
    expect(await found('entity.nothing=1')).to.deep.equal([]);
  });

  it('one alert comes with the event at which it fired, digit for digit', async () => {
    const answer = await rest.call('GET', `${path}/${ids[0]}`);
    expect(answer.text).to.include('12345678901234567890123');
    expect(answer.body).to.deep.include({
      id: ids[0],
      ruleId: ruleB,
      revision: 3,
      userId: 'ann',
      entity: { token_id: 'ethereum:0xc02a', n: 6 },
      severity: 'info',
      state: 'firing',
      value: '3001',
      firedAt: '2026-11-22T12:00:03.123456Z',
      firedSeq: 106,
    });
    expect((await rest.call('GET', `${path}/${ids[1]}`)).body).to.include({
      resolvedAt: '2026-11-22T12:00:02.123456Z',
      resolvedSeq: 205,
      reason: 'condition',
    });
  });

  it('another’s alerts and their notifications are not there', async () => {
    expect((await rest.call('GET', path, undefined, { as: 'bob' })).body.items).to.have.length(1);
    expect((await rest.call('GET', path, undefined, { as: 'root' })).body.items).to.deep.equal([]);
    for (const target of [`${path}/${ids[0]}`, `${path}/${ids[0]}/notifications`, `${path}/x`, `${path}/x/notifications`])
      expect((await rest.call('GET', target, undefined, { as: 'bob' })).status, target).to.equal(404);
  });

  it('tells to whom it was told, each attempt, and why not', async () => {
    const [alert] = ids;
    const job = `INSERT INTO headwater.notification_jobs
      (job_id, transition, alert_id, rule_id, user_id, at, channel, target_key, target, endpoint, notice, state, reason, digest_id, delivered_at, attempts, last_status)`;
    await rest.sql(
      `${job} VALUES
      ('sent-webhook', 'firing', $1, $2, 'ann', '2026-11-22T12:00:03.5Z', 'webhook', 'k', '{"url":"https://example.com/h"}', 'e', '{"private":1}', 'delivered', null, null, '2026-11-22T12:00:05Z', 2, 204),
      ('digested-mail', 'firing', $1, $2, 'ann', '2026-11-22T12:00:03.5Z', 'email', 'k', '{"to":"a@example.com"}', 'e', null, 'suppressed', 'digested', 'digest-of-ann', null, 0, null)`,
      [alert, ruleB],
    );
    await rest.sql(`INSERT INTO headwater.notification_logs (job_id, alert_id, rule_id, user_id, transition, channel, target, attempt, status, status_code, latency_ms, answer) VALUES
      ('sent-webhook', '${alert}', '${ruleB}', 'ann', 'firing', 'webhook', 'x', 1, 'retry', 503, 31, 'busy'),
      ('sent-webhook', '${alert}', '${ruleB}', 'ann', 'firing', 'webhook', 'x', 2, 'delivered', 204, 12, null),
      ('digest-of-ann', null, null, 'ann', 'digest', 'email', 'x', 1, 'delivered', 250, 40, 'ok')`);
    const { status, body, text } = await rest.call('GET', `${path}/${alert}/notifications`);
    expect(status, text).to.equal(200);
    const [mail, hook] = [...body.items].sort((a, b) => (String(a['id']) < String(b['id']) ? -1 : 1));
    expect(hook).to.deep.include({
      id: 'sent-webhook',
      transition: 'firing',
      channel: 'webhook',
      target: { url: 'https://example.com/h' },
      state: 'delivered',
      attempts: 2,
      lastStatus: 204,
      deliveredAt: '2026-11-22T12:00:05.000000Z',
    });
    const attempts = (hook!['log'] as Record<string, unknown>[]).map(({ attempt, status: outcome, statusCode, answer }) => [
      attempt,
      outcome,
      statusCode,
      answer,
    ]);
    expect(attempts).to.deep.equal([
      [1, 'retry', 503, 'busy'],
      [2, 'delivered', 204, undefined],
    ]);
    expect(mail).to.include({ state: 'suppressed', reason: 'digested', digestId: 'digest-of-ann' });
    // The digest's own attempts: that is how this one was told.
    expect(mail!['log']).to.have.length(1);
    expect(text).not.to.include('private');
    expect((await rest.call('GET', `${path}/${ids[1]}/notifications`)).body).to.deep.equal({ items: [] });
  });
});
