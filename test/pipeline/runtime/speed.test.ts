import { expect } from 'chai';
import { Speed } from '../../../pipeline/runtime/speed.ts';

describe('speed of something that goes on', () => {
  it('says nothing before it can be told, and leaves out what came before it moved', () => {
    const speed = new Speed();
    // The connection takes its time; a rebuild that goes on begins somewhere.
    for (let now = 0; now <= 8_000; now += 200) expect(speed.at(500_000, now), `at ${now}`).to.equal(undefined);
    for (let now = 8_200; now < 11_000; now += 200) expect(speed.at(500_000 + now - 8_000, now), `at ${now}`).to.equal(undefined);
    for (let now = 11_000; now < 20_000; now += 200) expect(speed.at(500_000 + now - 8_000, now), `at ${now}`).to.equal(1_000);
  });

  it('is that of late', () => {
    const speed = new Speed(5_000);
    for (let now = 0; now <= 10_000; now += 100) speed.at(now * 10, now);
    for (let now = 10_100; now <= 14_900; now += 100) expect(speed.at(100_000, now)).to.be.within(1, 10_000);
    expect(speed.at(100_000, 15_100)).to.equal(0);
  });

  it('is told between steps that are further apart than that', () => {
    const speed = new Speed(5_000);
    for (const now of [0, 10_000, 20_000]) speed.at(now * 2, now);
    expect(speed.at(60_000, 30_000)).to.equal(2_000);
  });

  it('is told anew of what begins anew', () => {
    const speed = new Speed();
    for (let now = 0; now <= 10_000; now += 200) speed.at(now, now);
    expect(speed.at(0, 10_200)).to.equal(undefined);
    for (let now = 10_400; now <= 14_000; now += 200) speed.at((now - 10_200) * 3, now);
    expect(speed.at(12_000, 14_200)).to.equal(3_000);
  });
});
