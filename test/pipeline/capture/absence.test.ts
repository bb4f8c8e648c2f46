import { expect } from 'chai';
import { Absence } from '../../../pipeline/capture/absence.ts';

describe('waiting for capture', () => {
  let [now, there, looks] = [0, true, 0];
  beforeEach(() => {
    [now, there, looks] = [0, true, 0];
  });
  const absence = (): Absence =>
    new Absence(
      async () => {
        looks++;
        return there;
      },
      10_000,
      () => now,
    );
  /** Asks four times a second; the time at which it was long, if it was. */
  async function ask(asked: Absence, until: number): Promise<number | undefined> {
    for (; now < until; now += 250) if (await asked.isLong()) return now;
    return undefined;
  }

  it('ends when nobody is there for ten seconds', async () => {
    there = false;
    expect(await ask(absence(), 60_000)).to.be.within(10_000, 11_500);
  });

  it('goes on when another one is there some seconds later, however long nothing was done before, and seldom looks', async () => {
    const asked = absence();
    for (let takeover = 0; takeover < 3; takeover++) {
      there = true;
      expect(await ask(asked, now + 25_000)).to.equal(undefined);
      there = false;
      expect(await ask(asked, now + 8_000)).to.equal(undefined);
    }
    expect(looks).to.be.below(105);
    expect(await ask(asked, now + 5_000)).to.be.a('number');
  });

  it('begins anew when the question itself was held up: both were away', async () => {
    there = false;
    let heldUpMs = 0;
    const asked = new Absence(
      async () => {
        now += heldUpMs;
        return there;
      },
      10_000,
      () => now,
    );
    expect(await ask(asked, 2_000)).to.equal(undefined);
    heldUpMs = 30_000;
    expect(await asked.isLong()).to.equal(false);
    heldUpMs = 0;
    expect(await ask(asked, now + 9_000)).to.equal(undefined);
    expect(await ask(asked, now + 3_000)).to.be.a('number');
  });

  it('counts from the last that was done', async () => {
    const asked = absence();
    there = false;
    expect(await ask(asked, 9_000)).to.equal(undefined);
    asked.seen();
    expect(await ask(asked, 18_000)).to.equal(undefined);
    expect(await ask(asked, 21_000)).to.be.a('number');
  });
});
