import { expect } from 'chai';
import { alertsRebuildTrial } from './support/alerts-trial.ts';
import { aggregatesRebuildTrial } from './support/aggregates-trial.ts';
import type { TrialReport } from './support/trial.ts';

const seed = Number(process.env['TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
/** Anywhere and of any command, before a rebuild is killed once in each phase. */
const kills = Number(process.env['TEST_KILLS'] ?? 0);
const say = process.env['TEST_SAY'] === undefined ? undefined : (text: string): void => console.error(Math.round(performance.now()), text);

describe('rebuild under kills', function () {
  this.timeout(300_000 + kills * 40_000);
  const options = { seed, kills, ...(say && { say }) };
  const expectReport = (what: string, report: TrialReport): void => {
    process.stdout.write(`      seed ${seed}, ${what}: ${JSON.stringify(report)}\n`);
    expect(report.kills).to.include.keys('fill', 'comparison', 'flip', 'drop');
    expect(report.readings).to.be.greaterThan(100);
  };

  it('leaves alerts, their history and their outbox as a fresh engine makes them of the log', async () => {
    expectReport('alerts', await alertsRebuildTrial(options));
  });

  it('leaves aggregates as SQL has them, and nothing beside them', async () => {
    const name = seed % 2 === 0 ? 'rows' : 'changes';
    expectReport(name, await aggregatesRebuildTrial({ ...options, name }));
  });
});
