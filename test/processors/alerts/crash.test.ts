import { expect } from 'chai';
import { alertsCrashTrial } from './support/crash-trial.ts';

const seed = Number(process.env['TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31));

describe('alerts under kills', function () {
  this.timeout(180_000);

  it('have the history and the outbox that a fresh engine makes of the log', async () => {
    const { events, alerts, transitions, ofWorking } = await alertsCrashTrial({ kills: 8, seed, lifeMs: 700 });
    process.stdout.write(`      seed ${seed}: ${transitions} transitions of ${alerts} alerts on ${events} events\n`);
    expect(ofWorking, 'kills of the working instance').to.be.greaterThan(2);
    expect(transitions, 'transitions').to.be.greaterThan(100);
  });
});
