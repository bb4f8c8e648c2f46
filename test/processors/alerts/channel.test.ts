import { expect } from 'chai';
import { startRoles, type RunningRoles } from '../../../cli/roles/start-roles.ts';
import { migrate } from '../../../deploy/migrate.ts';
import { requestReset } from '../../../pipeline/capture/operations.ts';
import { createPool, type PgPool } from '../../../pipeline/clients/postgres.ts';
import { createKey } from '../../../pipeline/keys/postgres-keys.ts';
import { Health } from '../../../pipeline/runtime/health.ts';
import { silentLogger } from '../../../pipeline/runtime/logging.ts';
import { createRegistry, type Registry } from '../../../pipeline/runtime/metrics.ts';
import { defaultCatalog } from '../../../schemas/catalog.ts';
import type { Status } from '../../../cli/status.ts';
import { runCli } from '../../cli/support/run-cli.ts';
import { TestClient, type Frame } from '../../gateway/support/harness.ts';
import { captureFixture, type CaptureFixture } from '../../pipeline/capture/support/fixture.ts';
import { until } from '../../support/role-context.ts';
import { testServers } from '../../support/servers.ts';

interface AlertEvent {
  readonly op: string;
  readonly type: string;
  readonly after: Readonly<Record<string, unknown>>;
}

describe('alerts, from a rule to its owner’s WebSocket', function () {
  this.timeout(60_000);
  let fixture: CaptureFixture;
  let pool: PgPool;
  let roles: RunningRoles;
  let metrics: Registry;
  const keys: Record<string, string> = {};
  const clients: TestClient[] = [];

  before(async () => {
    fixture = await captureFixture();
    const log = silentLogger();
    await migrate(fixture.databaseUrl, { demo: false, log });
    await fixture.query('CREATE TABLE prices (token text PRIMARY KEY, price numeric)');
    await fixture.query(`INSERT INTO prices VALUES ('eth', 90), ('btc', 90)`);
    pool = createPool(fixture.databaseUrl, 'test', log, 2);
    for (const owner of ['ann', 'bob']) keys[owner] = (await createKey(pool, { name: owner, owner, scopes: ['read', 'alerts'] })).key;
    const { redisUrl } = await testServers();
    const { operator } = fixture.natsUrls;
    metrics = createRegistry();
    roles = await startRoles(['capture', 'alerts', 'gateway'], {
      config: fixture.config({ HEADWATER_PORT: '0', HEADWATER_TICK: '100ms', REDIS_URL: redisUrl, NATS_URL: operator }),
      natsUrls: { capture: operator, processor: operator, gateway: operator },
      catalog: defaultCatalog(),
      log,
      health: new Health(),
      metrics,
      signal: new AbortController().signal,
      snapshot: true,
    });
    await Promise.all([roles.gateway!.ready, roles.capture!.streaming]);
  });
  after(async () => {
    for (const client of clients) client.ws.terminate();
    await roles?.stop();
    await pool?.end();
    await fixture?.close();
  });

  async function subscribed(owner: string, from: unknown = 'now'): Promise<TestClient & { token: unknown }> {
    const client = await TestClient.open(roles.gateway!, keys[owner]);
    clients.push(client);
    const { token } = await client.subscribe({ sub: 'mine', channel: 'alerts', from });
    return Object.assign(client, { token });
  }
  const insertRule = async (owner: string, name: string, threshold: number): Promise<string> => {
    const [row] = await fixture.query(
      `INSERT INTO headwater.alert_rules (user_id, name, table_name, condition, severity, channels)
       VALUES ($1, $2, 'public.prices', $3, 'warning', '[{"type":"email","to":"secret@example.com"}]') RETURNING id`,
      [owner, name, JSON.stringify({ field: 'price', op: 'gt', value: threshold })],
    );
    await fixture.settled();
    return row!['id'] as string;
  };
  const next = async (client: TestClient): Promise<{ frame: Frame; event: AlertEvent }> => {
    const frame = await client.next('event', 10_000);
    return { frame, event: frame['event'] as AlertEvent };
  };
  const status = async (): Promise<Status> => {
    const { redisUrl } = await testServers();
    const env = {
      DATABASE_URL: fixture.databaseUrl,
      NATS_URL: fixture.natsUrls.operator,
      REDIS_URL: redisUrl,
      HEADWATER_SLOT: fixture.slot,
    };
    return JSON.parse((await runCli(['status', '--json'], env)).stdout) as Status;
  };
  const price = (value: number): Promise<unknown> => fixture.query(`UPDATE prices SET price = $1 WHERE token = 'eth'`, [value]);

  it('brings firing and resolved to the owner as an insert and an update with sequences, to be resumed; and to nobody else', async () => {
    const id = await insertRule('ann', 'above 100', 100);
    const ann = await subscribed('ann');
    const bob = await subscribed('bob');
    await price(101.5);
    const fired = await next(ann);
    expect(fired.event).to.include({ op: 'insert', type: 'alert' });
    expect(fired.event.after).to.deep.include({
      rule_id: id,
      revision: 1,
      user_id: 'ann',
      entity: { token: 'eth' },
      severity: 'warning',
      state: 'firing',
      value: '101.5',
      reason: null,
    });
    ann.ws.terminate();
    await price(99);
    await price(102);
    // Nothing was lost on the way, and nothing comes twice.
    const again = await subscribed('ann', { token: ann.token, after: fired.frame['seq'] });
    const [resolved, firedAgain] = [await next(again), await next(again)];
    expect(resolved.event.op).to.equal('update');
    expect(resolved.event.after).to.include({ id: fired.event.after['id'], state: 'resolved', reason: 'condition' });
    expect(resolved.event.after['fired_seq']).to.equal(fired.event.after['fired_seq']);
    expect(Number(resolved.event.after['resolved_seq'])).to.be.greaterThan(Number(fired.event.after['fired_seq']));
    expect(firedAgain.event).to.include({ op: 'insert' });
    expect(firedAgain.event.after['id']).to.not.equal(fired.event.after['id']);
    await fixture.settled();
    expect(bob.events()).to.deep.equal([]);
  });

  it('gives another owner theirs', async () => {
    await insertRule('bob', 'above 50', 50);
    const bob = await subscribed('bob');
    await fixture.query(`UPDATE prices SET price = 60 WHERE token = 'btc'`);
    expect((await next(bob)).event.after).to.deep.include({ user_id: 'bob', entity: { token: 'btc' }, state: 'firing' });
  });

  it('keeps where a rule notifies out of the log', async () => {
    const events = await fixture.settled();
    expect(events.some(({ table, op }) => table === 'headwater.alert_rules' && op === 'insert')).to.equal(true);
    expect(JSON.stringify(events)).to.not.include('secret@example.com');
  });

  it('shows in `headwater status`', async () => {
    const { alerts, processors } = await status();
    expect(alerts).to.include({ rules: 2, pending: 0, firing: 2, outbox: 4, undelivered: 0 });
    expect(alerts!.outboxSeconds).to.be.greaterThan(0);
    expect(processors!.map(({ name }) => name)).to.deep.equal(['alerts']);
  });

  it('counts evaluations, transitions, and what is going on', async () => {
    const text = await metrics.metrics();
    expect(text).to.match(/headwater_alerts_rules 2\n/);
    expect(text).to.match(/headwater_alerts_firing 2\n/);
    expect(text).to.match(/headwater_alerts_transitions_total\{state="firing"\} 3\n/);
    expect(text).to.match(/headwater_alerts_evaluations_total [1-9]/);
  });

  it('in a new epoch resolves what fired, and fires anew what still holds', async () => {
    const firing = async (): Promise<unknown[]> =>
      (await fixture.query(`SELECT id FROM headwater.alert_history WHERE state = 'firing' ORDER BY user_id`)).map(({ id }) => id);
    const before = await firing();
    const config = fixture.config({ NATS_URL: fixture.natsUrls.operator });
    const { signal } = new AbortController();
    const operation = { config, catalog: defaultCatalog(), log: silentLogger(), signal, progress: () => undefined };
    expect(await requestReset(operation, 'resnapshot')).to.equal('taken');
    // In the copy bob's rule meets eth, too.
    const anew = async (): Promise<boolean> => {
      const now = await firing();
      return now.length === 3 && !now.some((id) => before.includes(id));
    };
    await until(anew, 30_000, 'firing anew');
    const ended = await fixture.query(`SELECT state, reason FROM headwater.alert_history WHERE id = ANY($1)`, [before]);
    expect(ended).to.deep.equal([1, 2].map(() => ({ state: 'resolved', reason: 'epoch_changed' })));
    const bob = await subscribed('bob', { last: 10 });
    await fixture.query(`UPDATE prices SET price = 40 WHERE token = 'btc'`);
    await until(() => bob.frames.some(({ event }) => (event as AlertEvent | undefined)?.after['reason'] === 'condition'));
  });
});
