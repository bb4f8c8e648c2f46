import { expect } from 'chai';
import { prune } from '../../../processors/notify/retention.ts';
import { until } from '../../support/role-context.ts';
import { notifyWorld, type NotifyWorld } from './support/notify-world.ts';
import { startReceiver, type Receiver } from './support/receiver.ts';

const day = 24 * 3_600_000;

describe('notify retention', () => {
  let world: NotifyWorld;
  let receiver: Receiver;
  const age = async (days: number): Promise<void> => {
    await world.pool.query(`UPDATE headwater.notification_jobs SET planned_at = planned_at - $1 * interval '1 day'`, [days]);
    await world.pool.query(`UPDATE headwater.notification_logs SET created_at = created_at - $1 * interval '1 day'`, [days]);
  };
  const count = async (table: string): Promise<number> => (await world.pool.query(`SELECT FROM headwater.${table}`)).rowCount!;
  beforeEach(async () => {
    world = await notifyWorld();
    receiver = await startReceiver();
  });
  afterEach(async () => {
    await receiver.close();
    await world.close();
  });

  it('forgets what was finished a month ago, and tells of the end of what still fires after it', async () => {
    const rule = await world.rule({ channels: [{ type: 'webhook', url: receiver.url }] });
    const history = `INSERT INTO headwater.alert_history (id, rule_id, revision, user_id, entity, severity, state, fired_at, fired_seq, event)
                     VALUES ($1, $2, 1, 'u1', '{}', 'info', 'firing', now(), 1, '{}')`;
    const role = world.start();
    const [still] = await world.fire({ rule, entity: { id: 1 } }, { rule, entity: { id: 2 } });
    await world.pool.query(history, [still, rule]);
    await until(async () => (await world.jobs(`state = 'delivered'`)).length === 2);
    await role.stop();
    const [first] = await world.jobs();
    await world.pool.query(
      `INSERT INTO headwater.notification_jobs (job_id, transition, alert_id, rule_id, user_id, at, channel, target_key, target, endpoint, state, reason, digest_id)
       SELECT 'suppressed_' || n, 'firing', gen_random_uuid(), $1, 'u1', now(), 'webhook', '', '{}', '', 'suppressed', 'digested', 'digest_12345678'
         FROM generate_series(1, 2500) n`,
      [rule],
    );
    await world.pool.query(
      `INSERT INTO headwater.notification_jobs (job_id, transition, user_id, at, channel, target_key, target, endpoint, state, notice)
       VALUES ('digest_12345678', 'digest', 'u1', now(), 'webhook', '', '{}', 'webhook x', 'queued', '{}')`,
    );
    await world.pool.query(
      `INSERT INTO headwater.notification_logs (job_id, alert_id, rule_id, user_id, transition, channel, target, attempt, status)
       SELECT $1, $2, $3, 'u1', 'firing', 'webhook', '', n, 'retry' FROM generate_series(2, 1500) n`,
      [first!.job_id, first!.alert_id, rule],
    );
    await age(29);
    await prune(world.pool, 30 * day, new AbortController().signal);
    expect([await count('notification_jobs'), await count('notification_logs')]).to.deep.equal([2_503, 1_501]);

    // What is not finished stays, with all that its digest tells of.
    await age(2);
    await prune(world.pool, 30 * day, new AbortController().signal);
    expect(await count('notification_logs')).to.equal(0);
    expect((await world.jobs(`job_id NOT LIKE 'suppressed%'`)).map(({ alert_id }) => alert_id)).to.have.members([null, still]);
    expect(await count('notification_jobs')).to.equal(2_502);

    await world.pool.query(`UPDATE headwater.notification_jobs SET state = 'dead', reason = 'expired' WHERE state = 'queued'`);
    for (let pass = 0; pass < 2; pass++) await prune(world.pool, 30 * day, new AbortController().signal);
    expect((await world.jobs()).map(({ alert_id }) => alert_id)).to.deep.equal([still]);

    await world.pool.query(
      `UPDATE headwater.alert_history SET state = 'resolved', resolved_at = now(), resolved_seq = 8, reason = 'condition'`,
    );
    await world.fire({ rule, alert: still!, transition: 'resolved', at: 5 });
    await prune(world.pool, 30 * day, new AbortController().signal);
    world.start();
    await until(async () => (await world.jobs(`transition = 'resolved' AND state = 'delivered'`)).length === 1);
    await prune(world.pool, 30 * day, new AbortController().signal);
    expect((await world.jobs()).map(({ transition }) => transition)).to.deep.equal(['resolved']);
  });

  it('goes on by itself while the role runs', async () => {
    const rule = await world.rule({ channels: [] });
    const first = world.start();
    await world.fire({ rule });
    await until(async () => (await count('notification_jobs')) === 1);
    await first.stop();
    await age(31);
    world.start();
    await until(async () => (await count('notification_jobs')) === 0);
  });
});
