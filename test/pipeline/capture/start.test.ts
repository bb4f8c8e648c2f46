import { expect } from 'chai';
import { captureFixture, type CaptureFixture } from './support/fixture.ts';
import { expectWellFormed, fold } from './support/stored-events.ts';

describe('capture: first start', function () {
  let fixture: CaptureFixture;
  beforeEach(async () => {
    fixture = await captureFixture();
  });
  afterEach(() => fixture.close());

  it('copies what is there, then streams: the log folds to the table', async () => {
    await fixture.query('CREATE TABLE items (id int PRIMARY KEY, v text)');
    await fixture.query(`INSERT INTO items SELECT i, 'v' || i FROM generate_series(1, 3000) i`);
    await fixture.streaming();
    await fixture.query(`UPDATE items SET v = 'new' WHERE id % 3 = 0`);
    const events = await fixture.settled();
    expectWellFormed(events);
    expect(fold(events, 'public.items').size).to.equal(3000);
  });
});
