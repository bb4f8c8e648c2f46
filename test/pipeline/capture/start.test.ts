import { expect } from 'chai';
import { runCli } from '../../cli/support/run-cli.ts';
import type { HeadwaterError } from '../../../pipeline/runtime/errors.ts';
import { captureFixture, ownServers, type CaptureFixture, type RunningCapture } from './support/fixture.ts';
import { expectWellFormed, fold } from './support/stored-events.ts';

/** The reason for which capture ends by itself. */
async function refusalOf(capture: RunningCapture): Promise<HeadwaterError> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`it was not refused; last lines: ${JSON.stringify(capture.lines.slice(-5))}`)), 20_000);
  });
  try {
    await Promise.race([capture.done, late]);
  } catch (error) {
    expect(error).to.have.property('reaction', 'refused');
    return error as HeadwaterError;
  } finally {
    clearTimeout(timer);
  }
  throw new Error('it ended without a refusal');
}

describe('capture: where it begins', function () {
  let fixture: CaptureFixture;
  beforeEach(async () => {
    fixture = await captureFixture();
    await fixture.query('CREATE TABLE items (id int PRIMARY KEY, v text)');
    await fixture.query(`INSERT INTO items SELECT i, 'v' || i FROM generate_series(1, 2500) i`);
  });
  afterEach(() => fixture.close());

  const dropSlot = async (): Promise<void> => {
    for (let attempt = 1; ; attempt++) {
      try {
        return void (await fixture.query('SELECT pg_drop_replication_slot($1)', [fixture.slot]));
      } catch (error) {
        if (attempt === 40) throw error;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
  };

  it('copies what is there between two marks, then streams what changes: nothing twice, nothing missing', async () => {
    const stop = new AbortController();
    const application = await fixture.connect();
    let changes = 0;
    const changing = (async () => {
      while (!stop.signal.aborted) {
        await application.query(`UPDATE items SET v = 'change ' || $1::int WHERE id = $2`, [++changes, 1 + (changes % 2_500)]);
        await application.query('INSERT INTO items VALUES ($1, $2)', [10_000 + changes, 'new']);
      }
    })();
    await fixture.streaming();
    stop.abort();
    await changing;
    const events = await fixture.settled();
    expectWellFormed(events);
    const marks = events.filter((event) => event.mark === 'snapshot');
    expect(marks.map((event) => event.data!['phase'])).to.deep.equal(['begin', 'end']);
    const reads = events.filter((event) => event.op === 'read');
    expect(reads.length).to.be.at.least(2_500);
    expect(reads.every(({ seq }) => seq > marks[0]!.seq && seq < marks[1]!.seq)).to.equal(true);
    expect(new Set(reads.map((event) => event.key!['id'])).size, 'each row is read once').to.equal(reads.length);
    const rows = await fixture.query('SELECT id, v FROM items');
    const folded = fold(events, 'public.items');
    expect(folded.size).to.equal(rows.length);
    for (const row of rows) expect(folded.get(JSON.stringify([row['id']]))).to.deep.equal(row);
  });

  it('begins without a copy when it is told to', async () => {
    await fixture.streaming({ snapshot: false });
    await fixture.query('DELETE FROM items WHERE id = 7');
    const events = await fixture.settled();
    expect(events.filter((event) => event.op === 'read')).to.deep.equal([]);
    expect(events.find((event) => event.op === 'delete')!.key).to.deep.equal({ id: 7 });
  });

  it('goes on where it was: a second start repeats nothing and misses nothing of the time between', async () => {
    const first = await fixture.streaming();
    await fixture.query(`UPDATE items SET v = 'a' WHERE id <= 10`);
    const before = await fixture.settled();
    await first.stop();
    await fixture.query(`UPDATE items SET v = 'b' WHERE id <= 10`);
    await fixture.streaming();
    const events = await fixture.settled();
    expectWellFormed(events);
    expect(events.slice(0, before.length)).to.deep.equal(before);
    const between = events.slice(before.length).filter((event) => event.table === 'public.items');
    expect(between.map((event) => [event.op, event.after!['v']])).to.deep.equal(Array.from({ length: 10 }, () => ['update', 'b']));
  });

  it('copies everything by backfill when it finds a slot beside a log that never held anything', async () => {
    await fixture.query('CREATE PUBLICATION headwater FOR TABLE items');
    await fixture.query(`CREATE PUBLICATION headwater_append WITH (publish = 'insert, truncate')`);
    await fixture.query(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, [fixture.slot]);
    await fixture.query('DELETE FROM items WHERE id = 1');
    const capture = await fixture.streaming({ env: { HEADWATER_BACKFILL_CHUNK: '1000' } });
    await fixture.copied('public.items');
    const events = await fixture.settled();
    expectWellFormed(events);
    expect(fold(events, 'public.items').size).to.equal(2_499);
    expect(events.filter((event) => event.op === 'delete').length).to.equal(1);
    await capture.stop();
    await fixture.streaming();
    await fixture.settled();
  });

  it('refuses when the slot is gone, with exit code 3 and the commands that mend it', async () => {
    const capture = await fixture.streaming();
    await fixture.settled();
    await capture.stop();
    await dropSlot();
    const { operator } = fixture.natsUrls;
    const env = {
      DATABASE_URL: fixture.databaseUrl,
      NATS_URL: operator,
      REDIS_URL: 'redis://127.0.0.1:1',
      HEADWATER_SLOT: fixture.slot,
      HEADWATER_ADMIN_PORT: '0',
    };
    const { code, stderr } = await runCli(['run', 'capture'], env);
    expect(stderr).to.match(
      /the log ends at [0-9A-F]{16}\.[0-9A-F]{8}, but the replication slot is gone \(PostgreSQL is at [0-9A-F]+\/[0-9A-F]+\)/,
    );
    expect(stderr).to.include('headwater resnapshot').and.to.include('headwater backfill --all --accept-gap');
    expect(code).to.equal(3);
  });

  it('refuses when somebody has moved the slot ahead, and names both positions', async () => {
    const capture = await fixture.streaming();
    await fixture.settled();
    await capture.stop();
    await fixture.query(`UPDATE items SET v = 'lost' WHERE id = 1`);
    for (let attempt = 1; ; attempt++) {
      try {
        await fixture.query('SELECT pg_replication_slot_advance($1, pg_current_wal_lsn())', [fixture.slot]);
        break;
      } catch (error) {
        if (attempt === 40) throw error;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
    const [slot] = await fixture.query('SELECT confirmed_flush_lsn::text AS at FROM pg_replication_slots WHERE slot_name = $1', [
      fixture.slot,
    ]);
    const { code, message } = await refusalOf(fixture.start());
    expect(code).to.equal('slot_ahead');
    expect(message)
      .to.include(String(slot!['at']))
      .and.to.include((await fixture.events()).at(-1)!.id);
  });

  it('refuses another database system, and names both', async () => {
    const capture = await fixture.streaming();
    await fixture.settled();
    await capture.stop();
    const { services } = await ownServers({ postgres: true }, (cleanup) => fixture.onClose(cleanup));
    const { code, message } = await refusalOf(fixture.start({ env: { DATABASE_URL: services.databaseUrl! } }));
    const [system] = await fixture.query('SELECT system_identifier::text AS id FROM pg_control_system()');
    expect(code).to.equal('other_database');
    expect(message).to.include(String(system!['id']));
  });

  it('refuses when something that is not capture has written to the log', async () => {
    const capture = await fixture.streaming();
    await fixture.settled();
    fixture.nats.publish('ev.public.items.insert', JSON.stringify({ hello: 'world' }));
    const refusal = await refusalOf(capture);
    expect(refusal.code).to.equal('foreign_event');
    expect(refusal.hint).to.include('headwater resnapshot');
    expect((await refusalOf(fixture.start())).code, 'at the next start as well').to.equal('foreign_event');
  });

  it('bears a late batch of a predecessor once, and refuses when somebody else goes on writing', async () => {
    const capture = await fixture.streaming();
    const foreign = async (index: string): Promise<void> => {
      const { id } = (await fixture.settled()).at(-1)!;
      fixture.nats.publish('ev._mark.foreign', JSON.stringify({ v: 1, id: `${id.slice(0, 16)}.${index}`, type: 'mark' }));
    };
    await foreign('90000000');
    await fixture.until(() => capture.said('that this process has not written'), 'the log to have moved');
    await foreign('90000001');
    expect((await refusalOf(capture)).code).to.equal('another_writer');
  });

  it('keeps the log in order when a second capture writes to it from a slot of its own', async () => {
    const second = { HEADWATER_SLOT: `${fixture.slot}_2`, HEADWATER_TICK: '50ms' };
    const one = await fixture.streaming({ env: { HEADWATER_TICK: '50ms' } });
    await fixture.query(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, [second.HEADWATER_SLOT]);
    await fixture.settled();
    const other = fixture.start({ env: second });
    let changed = 0;
    for (let i = 0; i < 150; i++)
      changed += (await fixture.sql.query('UPDATE items SET v = $1 WHERE id % 40 = $2', [`round ${i}`, i % 40])).rowCount ?? 0;
    await Promise.all([one.stop(), other.stop()]);
    await fixture.streaming();
    const events = await fixture.settled();
    expectWellFormed(events);
    expect(events.filter((event) => event.op === 'update').length).to.equal(changed);
  });

  it('asks for the old position again after a trim has emptied the log', async () => {
    const capture = await fixture.streaming({ env: { HEADWATER_LOG_MAX_AGE: '1s', HEADWATER_TICK: '0' } });
    await fixture.settled();
    await fixture.until(
      async () => (await fixture.record.position())?.seq === (await (await fixture.log()).bounds()).last,
      'the last position to be kept',
    );
    await capture.stop();
    await fixture.query(`INSERT INTO items VALUES (90001, 'while away')`);
    await fixture.until(async () => (await (await fixture.log()).bounds()).messages === 0, 'the log to be trimmed');
    const { last } = await (await fixture.log()).bounds();
    await fixture.streaming({ env: { HEADWATER_LOG_MAX_AGE: '1h' } });
    const events = await fixture.settled();
    expect(events[0]!.seq).to.equal(last + 1);
    expect(events.filter((event) => event.table === 'public.items').map((event) => event.key)).to.deep.equal([{ id: 90001 }]);
  });
});
