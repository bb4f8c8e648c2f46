import { expect } from 'chai';
import { parseId, parseLsn } from '../../../pipeline/source/position.ts';
import { captureFixture, type CaptureFixture } from './support/fixture.ts';

describe('capture: ticks, and what the database is told', function () {
  let fixture: CaptureFixture;
  beforeEach(async () => {
    fixture = await captureFixture();
    await fixture.query('CREATE TABLE items (id int PRIMARY KEY, v text)');
  });
  afterEach(() => fixture.close());

  const confirmed = async (): Promise<bigint> => {
    const [slot] = await fixture.query('SELECT confirmed_flush_lsn::text AS at FROM pg_replication_slots WHERE slot_name = $1', [
      fixture.slot,
    ]);
    return parseLsn(String(slot!['at']));
  };
  const logEnd = async (): Promise<bigint> =>
    parseId((JSON.parse(Buffer.from((await (await fixture.log()).last())!.data).toString()) as { id: string }).id).lsn;

  it('writes the database’s clock as often as it is asked to, and an idle slot moves on with it', async () => {
    await fixture.streaming({ env: { HEADWATER_TICK: '100ms' } });
    const before = await confirmed();
    await fixture.until(async () => (await fixture.events()).filter((event) => event.type === 'tick').length >= 10, 'ten ticks', 3_000);
    const ticks = (await fixture.events()).filter((event) => event.type === 'tick');
    const times = ticks.map((tick) => Date.parse(tick.at));
    expect(times).to.deep.equal(times.toSorted((a, b) => a - b));
    expect(Math.abs(times.at(-1)! - Date.now())).to.be.lessThan(2_000);
    expect(ticks.every((tick) => tick.tx!.last && tick.subject === 'ev._tick')).to.equal(true);
    await fixture.until(async () => (await confirmed()) > before, 'the slot to move');
  });

  it('without ticks it still beats: once at the start, and when much WAL has gone by that is not for the log', async () => {
    await fixture.query('CREATE TABLE unwatched (v text)');
    await fixture.streaming({ env: { HEADWATER_TICK: '0' } });
    const ticks = async (): Promise<number> => (await fixture.events()).filter((event) => event.type === 'tick').length;
    await fixture.until(async () => (await ticks()) === 1, 'the first beat');
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    expect(await ticks()).to.equal(1);
    const before = await confirmed();
    await fixture.query(`INSERT INTO unwatched SELECT repeat(md5(i::text), 60) FROM generate_series(1, 12000) i`);
    await fixture.until(async () => (await ticks()) > 1, 'a beat for 20 MB of WAL', 8_000);
    await fixture.until(async () => (await confirmed()) - before > 16n * 1024n ** 2n, 'the slot to let go of them', 8_000);
  });

  it('never tells the database of more than the log holds, under load', async () => {
    await fixture.streaming({ env: { HEADWATER_TICK: '50ms' } });
    let writing = true;
    const application = await fixture.connect();
    const load = (async () => {
      for (let i = 0; writing; i++)
        await application.query(`INSERT INTO items SELECT $1::int * 1000 + j, repeat('v', 200) FROM generate_series(1, $2::int) j`, [
          i,
          1 + ((i * 37) % 900),
        ]);
    })();
    let samples = 0;
    let moves = 0;
    let last = 0n;
    const begun = performance.now();
    const seconds = (): number => (performance.now() - begun) / 1_000;
    while (seconds() < 3 || samples < 100) {
      // The slot first: the log only grows, so what it holds a moment later is no less.
      const slot = await confirmed();
      const held = await logEnd();
      if (slot > held + 1n) expect.fail(`the slot is confirmed up to ${slot}, the log ends at ${held}`);
      samples++;
      if (slot !== last) moves++;
      last = slot;
    }
    const most = 1 + 2 * seconds();
    writing = false;
    await load;
    expect(moves, 'times that the slot moved').to.be.within(2, most);
  });
});
