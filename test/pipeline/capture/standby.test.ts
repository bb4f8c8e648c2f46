import { expect } from 'chai';
import { captureFixture, type CaptureFixture } from './support/fixture.ts';
import { startCli } from '../../cli/support/run-cli.ts';
import { once } from 'node:events';
import { expectWellFormed, fold } from './support/stored-events.ts';

describe('capture: two of them', function () {
  let fixture: CaptureFixture;
  beforeEach(async () => {
    fixture = await captureFixture();
    await fixture.query('CREATE TABLE items (id int PRIMARY KEY, v text)');
  });
  afterEach(() => fixture.close());

  it('the second waits, says so, and takes over when the first is killed', async () => {
    const env = {
      DATABASE_URL: fixture.databaseUrl,
      NATS_URL: fixture.natsUrls.capture,
      REDIS_URL: 'redis://127.0.0.1:1',
      HEADWATER_SLOT: fixture.slot,
      HEADWATER_ADMIN_PORT: '0',
    };
    const child = startCli(['run', 'capture'], env);
    fixture.onClose(() => void child.kill('SIGKILL'));
    const activePid = async (): Promise<unknown> =>
      (await fixture.query('SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1', [fixture.slot]))[0]?.['active_pid'];
    await fixture.until(async () => (await fixture.events().catch(() => [])).some((event) => event.type === 'tick'), 'the first to stream');
    const walsender = await activePid();
    const second = fixture.start();
    await fixture.until(() => second.said('standing by'), 'the second to say that it waits');
    await fixture.query(`INSERT INTO items SELECT i, 'first' FROM generate_series(1, 100) i`);
    await fixture.settled();
    expect(await activePid(), 'the first still reads').to.equal(walsender);
    expect(second.health.ready).to.equal(false);
    child.kill('SIGKILL');
    await once(child, 'exit');
    const killedAt = performance.now();
    await fixture.query(`INSERT INTO items SELECT i, 'second' FROM generate_series(101, 200) i`);
    await second.streaming;
    expect(performance.now() - killedAt, 'ms until the second had taken over').to.be.lessThan(10_000);
    const events = await fixture.settled();
    expectWellFormed(events);
    expect(events.filter((event) => event.op === 'insert').map((event) => event.key!['id'])).to.deep.equal(
      Array.from({ length: 200 }, (_, i) => i + 1),
    );
  });

  it('started together on a fresh database, one does the copy and the other waits', async () => {
    await fixture.query(`INSERT INTO items SELECT i, repeat('v', 500) FROM generate_series(1, 20000) i`);
    const captures = [fixture.start(), fixture.start()];
    await Promise.race([...captures.map((capture) => capture.streaming), ...captures.map((capture) => capture.done)]);
    await fixture.copied('public.items');
    const events = await fixture.settled();
    expectWellFormed(events);
    expect(fold(events, 'public.items').size).to.equal(20_000);
    expect(events.filter((event) => event.mark === 'snapshot').length, 'one copy, begun and ended').to.equal(2);
    const fine = await Promise.race([
      Promise.all(captures.map((capture) => capture.done)),
      new Promise((resolve) => setTimeout(resolve, 300, 'both run')),
    ]);
    expect(fine).to.equal('both run');
  });
});
