import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { silentLogger } from '../../../pipeline/runtime/logging.ts';
import { defaultOptions } from '../../../processors/notify/options.ts';
import { planNext, type Planned } from '../../../processors/notify/planner.ts';
import { begin, takeTurn } from '../../../processors/notify/plan-store.ts';
import { until } from '../../support/role-context.ts';
import { notifyWorld, type NotifyWorld } from './support/notify-world.ts';
import { answers, startReceiver, type Receiver } from './support/receiver.ts';

const types = ({ received }: Receiver): string[] => received.map(({ text }) => (JSON.parse(text) as { type: string }).type);

describe('notify, order and turns', () => {
  let world: NotifyWorld;
  let receiver: Receiver;
  const webhook = (path = ''): object => ({ type: 'webhook', url: receiver.url + path });
  beforeEach(async () => {
    world = await notifyWorld();
    receiver = await startReceiver();
  });
  afterEach(async () => {
    await receiver.close();
    await world.close();
  });

  it('tells of the end only when the beginning has been told of, however often that fails', async () => {
    const rule = await world.rule({ channels: [webhook()] });
    receiver.answer = (response, { text }) => void response.writeHead(text.includes('"alert.firing"') ? 503 : 200).end();
    world.start();
    const [alert] = await world.fire({ rule });
    await until(() => receiver.received.length > 0);
    await world.fire({ rule, alert: alert!, transition: 'resolved', at: 5 });
    await until(() => receiver.received.length > 2);
    await sleep(500);
    expect(new Set(types(receiver))).to.deep.equal(new Set(['alert.firing']));
    expect((await world.jobs(`transition = 'resolved'`)).map(({ state, reason }) => [state, reason])).to.deep.equal([
      ['queued', 'firing_first'],
    ]);
    receiver.answer = answers(200);
    await until(() => world.settled());
    expect(types(receiver).slice(-2)).to.deep.equal(['alert.firing', 'alert.resolved']);
  });

  it('tells of the end also when the beginning was given up', async () => {
    const rule = await world.rule({ channels: [webhook()] });
    receiver.answer = (response, { text }) => void response.writeHead(text.includes('"alert.firing"') ? 503 : 200).end();
    world.start();
    const [alert] = await world.fire({ rule }, { rule, entity: { id: 2 } });
    await world.fire({ rule, alert: alert!, transition: 'resolved', at: 5 });
    await until(async () => (await world.jobs(`reason = 'firing_first'`)).length === 1);
    await world.pool.query(`UPDATE headwater.notification_jobs SET first_at = now() - interval '24 hours' WHERE alert_id = $1`, [alert]);
    await until(async () => (await world.jobs(`transition = 'resolved' AND state = 'delivered'`)).length === 1);
    expect((await world.jobs(`reason = 'expired'`)).map(({ alert_id }) => alert_id)).to.deep.equal([alert]);
  });

  it('does not let what has backed off wait when its endpoint is back, unless the receiver asked for it', async () => {
    const rule = await world.rule({ channels: [webhook()] });
    const asked = await world.rule({ channels: [webhook('/later')] });
    receiver.answer = (response, { path }) => void response.writeHead(503, path === '/hook/later' ? { 'retry-after': '3600' } : {}).end();
    world.start({ breakerFailures: 4 });
    await world.fire({ rule: asked, entity: { id: 0 } }, ...[1, 2, 3, 4].map((id) => ({ rule, entity: { id } })));
    const open = `SELECT FROM headwater.notification_endpoints WHERE open_until IS NOT NULL`;
    await until(async () => (await world.pool.query(open)).rowCount === 1);
    await until(async () => (await world.jobs(`attempts > 0 AND state = 'queued'`)).length === 5);
    // As after an hour: all but one have backed off for long.
    await world.pool.query(
      `UPDATE headwater.notification_jobs SET next_attempt_at = now() + interval '1 hour'
        WHERE job_id <> (SELECT min(job_id) FROM headwater.notification_jobs WHERE rule_id = $1)`,
      [rule],
    );
    receiver.answer = answers(200);
    await until(async () => (await world.jobs(`state = 'delivered'`)).length === 4);
    expect((await world.jobs(`state <> 'delivered'`)).map(({ state, reason }) => [state, reason])).to.deep.equal([
      ['queued', 'retry_after'],
    ]);
  });

  it('sends a digest for as long as one of its many rules leads to the target', async () => {
    const rules: string[] = [];
    for (let i = 0; i < 40; i++) rules.push(await world.rule({ channels: [webhook()] }));
    world.start({ perUserMinute: 0, minuteMs: 2_000 });
    await until(() => Date.now() % 2_000 < 500);
    await world.fire(...rules.map((rule) => ({ rule })));
    await until(async () => (await world.jobs(`state = 'collecting'`)).length === 1);
    const [last] = rules.toSorted().slice(-1);
    await world.pool.query(`UPDATE headwater.alert_rules SET channels = '[]' WHERE id <> $1`, [last]);
    await until(() => world.settled());
    expect(types(receiver)).to.deep.equal(['alert.digest']);
  });

  it('plans large events in small portions', async () => {
    const rule = await world.rule({ channels: [webhook()] });
    const event = JSON.stringify({ v: 'x'.repeat(1_024 ** 2) });
    await world.fire(...Array.from({ length: 20 }, (_, id) => ({ rule, entity: { id }, event })));
    const options = { ...defaultOptions, perUserMinute: 100, perRuleMinute: 100 };
    const configured = new Set(['webhook'] as const);
    const planned: Planned[] = [];
    do planned.push(await planNext({ pool: world.pool, options, configured, text: () => '', log: silentLogger() }));
    while (planned.at(-1)!.more);
    expect(planned.map(({ ready }) => ready.length)).to.deep.equal([7, 7, 6]);
  });

  it('is not kept waiting by a host that vanished in the middle of a transaction', async () => {
    const client = await world.pool.connect();
    try {
      const seconds = async (): Promise<string> =>
        (await client.query<{ s: string }>(`SELECT current_setting('idle_in_transaction_session_timeout') AS s`)).rows[0]!.s;
      expect(await takeTurn(client, 60_000)).to.be.an('object');
      expect(await seconds()).to.equal('10s');
      await client.query('ROLLBACK');
      await client.query(begin);
      expect(await seconds()).to.equal('10s');
      await client.query('ROLLBACK');
      expect(await seconds()).to.equal('0');
    } finally {
      client.release();
    }
  });

  it('has many attempts under way without a warning', async () => {
    const warnings: string[] = [];
    const onWarning = ({ name }: Error): void => void warnings.push(name);
    process.on('warning', onWarning);
    const rule = await world.rule({ channels: [webhook()] });
    receiver.answer = () => undefined;
    const limits = { inFlight: 16, perSecond: 1_000 };
    world.start({ perRuleMinute: 100, stopMs: 50, endpoints: { webhook: limits, email: limits, push: limits } });
    await world.fire(...Array.from({ length: 16 }, (_, id) => ({ rule, entity: { id } })));
    await until(() => receiver.received.length === 16);
    process.off('warning', onWarning);
    expect(warnings).to.deep.equal([]);
  });
});
