import { expect } from 'chai';
import { createHmac } from 'node:crypto';
import type { Channel } from '../../../processors/notify/channel.ts';
import { redrive } from '../../../processors/notify/redrive.ts';
import { until } from '../../support/role-context.ts';
import { logTime, notifyWorld, type NotifyWorld } from './support/notify-world.ts';
import { answers, startReceiver, type Receiver } from './support/receiver.ts';

const key = Buffer.alloc(32, 7);
const idle = { inFlight: 1, perSecond: 1 };
const secret = `whsec_${key.toString('base64')}`;

describe('notify, end to end', () => {
  let world: NotifyWorld;
  let receiver: Receiver;
  const webhook = (path = '', to = receiver): object => ({ type: 'webhook', url: to.url + path, secret });
  beforeEach(async () => {
    world = await notifyWorld();
    receiver = await startReceiver();
  });
  afterEach(async () => {
    await receiver.close();
    await world.close();
  });

  it('delivers a signed webhook for a row of the outbox, and logs the attempt', async () => {
    const rule = await world.rule({ channels: [webhook('/a?token=hidden')] });
    receiver.answer = answers(200, 'ok');
    world.start();
    const [alert] = await world.fire({ rule, entity: { id: 'x' }, at: 1, event: '{"v":1,"n":"1.10","\\u0000":"\\u0000"}' });
    await until(async () => (await world.jobs(`state = 'delivered'`)).length === 1);
    const [got] = receiver.received;
    const { headers, text } = got!;
    const signature = createHmac('sha256', key)
      .update(`${got!.id}.${String(headers['webhook-timestamp'])}.${text}`)
      .digest('base64');
    expect(headers['webhook-signature']).to.equal(`v1,${signature}`);
    expect(JSON.parse(text)).to.deep.equal({
      type: 'alert.firing',
      timestamp: logTime(1),
      data: {
        alert: { id: alert, state: 'firing', entity: { id: 'x' }, severity: 'warning', value: '51.10', firedAt: logTime(1), firedSeq: 7 },
        rule: { id: rule, revision: 1, name: 'a rule', table: 'public.prices', condition: 'price > 50' },
        event: { v: 1, n: '1.10', '\u0000': '\u0000' },
      },
    });
    const { rows } = await world.pool.query('SELECT job_id, attempt, status, status_code, target, answer FROM headwater.notification_logs');
    const target = new URL(receiver.url).origin;
    expect(rows).to.deep.equal([{ job_id: got!.id, attempt: 1, status: 'delivered', status_code: 200, target, answer: 'ok' }]);
  });

  it('reaches the receiver well within a second of the commit, without waiting for a sweep', async () => {
    world.start({ sweepMs: 60_000, endpoints: { webhook: { inFlight: 4, perSecond: 1_000 }, email: idle, push: idle } });
    await until(async () => (await world.pool.query(`SELECT FROM pg_stat_activity WHERE query LIKE 'LISTEN%'`)).rowCount !== 0);
    const latencies: number[] = [];
    for (let i = 0; i < 100; i++) {
      const rule = await world.rule({ user: `u${i}`, channels: [webhook()] });
      const committing = performance.now();
      await world.fire({ rule, user: `u${i}` });
      await until(() => receiver.received.length > i);
      latencies.push(receiver.received[i]!.at - committing);
    }
    expect(latencies.sort((a, b) => a - b)[98]).to.be.lessThan(1_000);
    expect(await world.queuedJobs()).to.be.at.least(95);
  });

  it('signs with the secret that the rule has at the time of the attempt, and sends nothing for a rule that is gone', async () => {
    const kept = await world.rule({ channels: [webhook()] });
    const gone = await world.rule({ channels: [webhook('/gone')] });
    receiver.answer = answers(503);
    world.start({ retryBaseMs: 400 });
    await world.fire({ rule: kept }, { rule: gone });
    await until(() => receiver.ids().size === 2);
    const other = Buffer.alloc(32, 9);
    const channels = JSON.stringify([{ type: 'webhook', url: receiver.url, secret: `whsec_${other.toString('base64')}` }]);
    await world.pool.query('UPDATE headwater.alert_rules SET channels = $2 WHERE id = $1', [kept, channels]);
    await world.pool.query('DELETE FROM headwater.alert_rules WHERE id = $1', [gone]);
    const before = receiver.received.length;
    receiver.answer = answers(204);
    await until(() => world.settled());
    const late = receiver.received.slice(before);
    const last = late.at(-1)!;
    const signed = `${last.id}.${String(last.headers['webhook-timestamp'])}.${last.text}`;
    expect(last.headers['webhook-signature']).to.equal(`v1,${createHmac('sha256', other).update(signed).digest('base64')}`);
    expect((await world.jobs(`rule_id = '${gone}'`)).map(({ state, reason }) => [state, reason])).to.deep.equal([
      ['suppressed', 'withdrawn'],
    ]);
  });

  it('leaves an endpoint alone that is down, and delivers all once it is back, each under its one id', async () => {
    const rule = await world.rule({ channels: [webhook()] });
    const port = Number(new URL(receiver.url).port);
    await receiver.close();
    world.start({ perUserMinute: 1_000, perRuleMinute: 1_000 });
    await world.fire(...Array.from({ length: 30 }, (_, i) => ({ rule, entity: { id: i } })));
    const open = async (): Promise<boolean> =>
      (await world.pool.query('SELECT FROM headwater.notification_endpoints WHERE open_until IS NOT NULL')).rowCount === 1;
    await until(open);
    const { rows } = await world.pool.query<{ n: number }>('SELECT sum(attempts)::int AS n FROM headwater.notification_jobs');
    expect(rows[0]!.n).to.be.lessThan(15);
    receiver = await startReceiver({ port });
    await until(() => world.settled(), 15_000);
    expect(receiver.received.length).to.equal(30);
    expect(receiver.ids().size).to.equal(30);
    expect(await open()).to.equal(false);
  });

  it('lets an endpoint that hangs keep nobody else waiting', async () => {
    const hanging = await startReceiver();
    hanging.answer = () => undefined;
    const bad = await world.rule({ user: 'bad', channels: [webhook('', hanging)] });
    const good = await world.rule({ user: 'good', channels: [webhook()] });
    world.start({ concurrency: 8, perUserMinute: 1_000, perRuleMinute: 1_000, stopMs: 100, attemptMs: 3_000 });
    await world.fire(...Array.from({ length: 100 }, (_, i) => ({ rule: bad, user: 'bad', entity: { id: i } })));
    await until(() => hanging.received.length === 4);
    const began = performance.now();
    await world.fire(...Array.from({ length: 10 }, (_, i) => ({ rule: good, user: 'good', entity: { id: i } })));
    await until(() => receiver.received.length === 10);
    expect(performance.now() - began).to.be.lessThan(1_000);
    expect(hanging.received.length).to.equal(4);
    await hanging.close();
  });

  it('sends no more to a webhook that answers 410, until its rule is touched or it is redriven', async () => {
    const rule = await world.rule({ channels: [webhook()] });
    receiver.answer = answers(410);
    world.start();
    await world.fire({ rule, entity: { id: 1 } });
    await until(async () => (await world.jobs(`state = 'dead' AND reason = 'gone'`)).length === 1);
    await world.fire({ rule, entity: { id: 2 } });
    await until(async () => (await world.jobs(`reason = 'disabled'`)).length === 1);
    await world.pool.query(`UPDATE headwater.alert_rules SET name = 'mended' WHERE id = $1`, [rule]);
    receiver.answer = answers(200);
    await world.fire({ rule, entity: { id: 3 } });
    await until(() => receiver.ids().size === 2);
    expect(await redrive(world.pool, { reason: 'expired' })).to.equal(0);
    expect(await redrive(world.pool, { userId: 'u1' })).to.equal(1);
    await until(() => world.settled());
    expect((await world.jobs(`state = 'delivered'`)).length).to.equal(2);
    expect(receiver.ids().size).to.equal(2);
  });

  it('reaches each device of the user, and forgets one that is gone', async () => {
    const keys: unknown[] = [];
    const push: Channel = {
      deliver(_, target) {
        keys.push(target);
        return Promise.resolve({ outcome: target.channel === 'push' && target.p256dh === 'old' ? 'gone' : 'delivered', status: 201 });
      },
      close: () => Promise.resolve(),
    };
    await world.pool.query(
      `INSERT INTO headwater.user_devices (user_id, endpoint, p256dh, auth)
       VALUES ('u1', 'https://push.example/1', 'old', 'a'), ('u1', 'https://push.example/2', 'new', 'b'), ('u2', 'https://push.example/3', 'x', 'c')`,
    );
    const rule = await world.rule({ channels: [{ type: 'push' }] });
    world.start({}, { channels: { push } });
    await world.fire({ rule });
    await until(async () => keys.length === 2 && (await world.settled()));
    const { rows } = await world.pool.query<{ id: string; endpoint: string }>(
      'SELECT id, endpoint FROM headwater.user_devices ORDER BY endpoint',
    );
    expect(rows.map(({ endpoint }) => endpoint)).to.deep.equal(['https://push.example/2', 'https://push.example/3']);
    expect(keys).to.deep.include({ channel: 'push', deviceId: rows[0]!.id, endpoint: 'https://push.example/2', p256dh: 'new', auth: 'b' });
    await world.fire({ rule });
    await until(async () => keys.length === 3 && (await world.settled()));
  });

  it('waits as long as Retry-After asks for, and gives up after a day', async () => {
    const rule = await world.rule({ channels: [webhook()] });
    receiver.answer = answers(429, '', { 'retry-after': '1' });
    world.start();
    await world.fire({ rule });
    await until(() => receiver.received.length === 2);
    const [first, second] = receiver.received;
    expect(second!.at - first!.at).to.be.within(990, 2_500);
    expect(receiver.ids().size).to.equal(1);
    // The second attempt has been received, and not yet taken note of perhaps.
    await until(async () => (await world.jobs(`state = 'queued' AND attempts = 2`)).length === 1);
    await world.pool.query(`UPDATE headwater.notification_jobs SET first_at = now() - interval '24 hours'`);
    await until(async () => (await world.jobs(`state = 'dead' AND reason = 'expired'`)).length === 1);
    expect(receiver.received.length).to.equal(3);
  });

  it('makes digests of a storm: one event flips 5,000 rules of a user', async () => {
    const { rows } = await world.pool.query<{ id: string }>(
      `INSERT INTO headwater.alert_rules (user_id, name, table_name, condition, channels)
       SELECT 'u1', 'rule ' || n, 'public.prices', '{}', $1 FROM generate_series(1, 5000) n RETURNING id`,
      [JSON.stringify([webhook()])],
    );
    world.start({ minuteMs: 4_000, endpoints: { webhook: { inFlight: 4, perSecond: 100 }, email: idle, push: idle } });
    await until(() => Date.now() % 4_000 < 500);
    const alerts = await world.fire(...rows.map(({ id }) => ({ rule: id })));
    await until(() => receiver.received.length === 21, 20_000);
    await until(() => world.settled());
    const bodies = receiver.received.map(
      ({ text }) => JSON.parse(text) as { type: string; data: { firing: number; resolved: number; alerts: [] } },
    );
    const [digest, ...others] = bodies.filter(({ type }) => type === 'alert.digest');
    expect(others).to.deep.equal([]);
    expect(digest!.data).to.deep.include({ firing: 4_980, resolved: 0 });
    expect(digest!.data.alerts.length).to.equal(20);
    const told = await world.jobs(`transition = 'firing'`);
    expect(new Set(told.map(({ alert_id }) => alert_id))).to.deep.equal(new Set(alerts));
    const digestId = receiver.received.at(-1)!.id;
    expect(told.filter(({ reason, digest_id }) => reason === 'digested' && digest_id === digestId).length).to.equal(4_980);

    // It is over for all of them: quiet where it was quiet.
    await world.fire(...alerts.map((alert, i) => ({ alert, rule: rows[i]!.id, transition: 'resolved' as const, at: 9 })));
    await until(async () => (await world.settled()) && (await world.jobs(`transition = 'resolved'`)).length === 5_000, 20_000);
    const after = receiver.received.slice(21).map(({ text }) => JSON.parse(text) as { type: string; data: { resolved: number } });
    expect(after.filter(({ type }) => type === 'alert.resolved').length).to.be.at.most(20);
    const summed = after.filter(({ type }) => type === 'alert.digest').reduce((sum, { data }) => sum + data.resolved, 0);
    expect(summed + after.filter(({ type }) => type === 'alert.resolved').length).to.equal(5_000);
  });

  it('keeps to silences and cooldowns in log time, and says so', async () => {
    const rule = await world.rule({ channels: [webhook()], cooldown: 60 });
    await world.pool.query(
      `INSERT INTO headwater.silences (user_id, rule_id, match, starts_at, ends_at) VALUES ('u1', $1, '{"chain":["Base","Optimism"]}', $2, $3)`,
      [rule, logTime(10), logTime(20)],
    );
    world.start();
    const base = { rule, entity: { id: 1, chain: 'Base' } };
    const other = { rule, entity: { id: 2, chain: 'Ethereum' } };
    for (const firing of [
      { ...base, at: 10 },
      { ...other, at: 10 },
      { ...base, at: 20 },
      { ...base, at: 79.999 },
      { ...base, at: 80 },
      { ...other, at: 69 },
    ])
      await world.fire(firing);
    await until(async () => (await world.jobs()).length === 6);
    await until(() => world.settled());
    const { rows } = await world.pool.query<{ states: string[] }>(
      `SELECT array_agg(coalesce(reason, state) ORDER BY at) AS states FROM headwater.notification_jobs GROUP BY entity_key`,
    );
    // By entity, in log time.
    expect(rows.map(({ states }) => states)).to.have.deep.members([
      ['silenced', 'delivered', 'cooldown', 'delivered'],
      ['delivered', 'cooldown'],
    ]);
  });

  it('tells of an end only those who were told of the beginning', async () => {
    const rule = await world.rule({ channels: [webhook('/old')] });
    world.start();
    const [told, deleted] = await world.fire({ rule, entity: { id: 1 } }, { rule, entity: { id: 2 } });
    await until(() => receiver.received.length === 2);
    await world.pool.query('UPDATE headwater.alert_rules SET channels = $2 WHERE id = $1', [
      rule,
      JSON.stringify([webhook('/old'), webhook('/new')]),
    ]);
    await world.fire(
      { rule, alert: told!, transition: 'resolved', at: 5 },
      { rule, alert: deleted!, transition: 'resolved', reason: 'rule_deleted', at: 5 },
      { rule, transition: 'resolved', at: 5 },
    );
    await until(async () => (await world.pool.query('SELECT FROM headwater.alert_outbox')).rowCount === 0);
    await until(() => world.settled());
    const ends = receiver.received.filter(({ text }) => text.includes('alert.resolved'));
    expect(ends.map(({ path }) => path)).to.deep.equal(['/hook/old']);
    expect(ends.map(({ text }) => (JSON.parse(text) as { data: { alert: object } }).data.alert)).to.deep.equal([
      {
        ...{ id: told, state: 'resolved', entity: { id: 1 }, severity: 'warning', value: '51.10', firedAt: logTime(0), firedSeq: 7 },
        ...{ resolvedAt: logTime(5), resolvedSeq: 8, reason: 'condition' },
      },
    ]);
  });
});
