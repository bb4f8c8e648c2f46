import { expect } from 'chai';
import { aggregatesCrashTrial } from './support/crash-trial.ts';

const seed = Number(process.env['TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31));

describe('aggregates under kills', function () {
  this.timeout(240_000);

  it('are what SQL says of the tables', async () => {
    const { events, windows, ofWorking } = await aggregatesCrashTrial({ kills: 12, seed, lifeMs: 500 });
    process.stdout.write(`      seed ${seed}: ${windows} windows of ${events} events, ${ofWorking} kills of a working instance\n`);
    expect(ofWorking, 'kills of a working instance').to.be.greaterThan(3);
    expect(windows, 'windows').to.be.greaterThan(50);
  });
});
