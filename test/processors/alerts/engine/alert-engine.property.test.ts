import { expect } from 'chai';
import fc from 'fast-check';
import { AlertEngine } from '../../../../processors/alerts/engine/alert-engine.ts';
import { NaiveAlerts } from './support/naive.ts';
import { randomLog } from './support/random-log.ts';
import { run, runInterrupted } from './support/run.ts';

const numRuns = Number(process.env['ALERT_RUNS'] ?? 150);

describe('alert engine against its specification', function () {
  this.timeout(0);

  it('does what evaluating every rule for every entity at every event does', () => {
    fc.assert(
      fc.property(randomLog, (events) => {
        const naive = new NaiveAlerts();
        for (const event of events) naive.apply(event);
        expect(run(events)).to.deep.equal(naive.told);
        expect(run(events, new AlertEngine())).to.deep.equal(naive.told);
      }),
      { numRuns },
    );
  });

  it('goes on from what is stored as if it had never stopped, and stores nothing that it does not need', () => {
    fc.assert(
      fc.property(randomLog, fc.array(fc.nat(80), { maxLength: 8 }), (events, stops) => {
        const { told, store } = runInterrupted(events, new Set(stops));
        const whole = runInterrupted(events, new Set(events.keys()), { reload: false });
        expect(told).to.deep.equal(whole.told);
        expect(store.contents).to.deep.equal(whole.store.contents);
      }),
      { numRuns },
    );
  });
});
