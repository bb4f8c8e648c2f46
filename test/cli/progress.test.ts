import { expect } from 'chai';
import { endText, progressText } from '../../cli/backfill-text.ts';
import { summaryLines } from '../../cli/dead-letters/redriving.ts';
import type { Output } from '../../cli/output.ts';
import { progressOn } from '../../cli/progress.ts';
import { plural } from '../../cli/progress-text.ts';
import { outcomeLine, rebuildLine } from '../../cli/rebuild-text.ts';
import { ReplayMeter } from '../../cli/replay/report.ts';
import type { RebuildProgress } from '../../pipeline/runner/rebuild/model.ts';

describe('progress of a command', () => {
  it('is a plain line now and then where nobody looks at a terminal, and none that says what the one before did', async () => {
    const lines: string[] = [];
    const output = { terminal: false, line: async (text: string) => void lines.push(text) } as unknown as Output;
    const progress = progressOn(output);
    const say = async (text: string, ms: number): Promise<void> => {
      for (const end = performance.now() + ms; performance.now() < end; await new Promise((resolve) => setTimeout(resolve, 50)))
        progress.show(text);
    };
    await say('waiting for its turn', 4_300);
    expect(lines).to.deep.equal(['waiting for its turn']);
    await say('10 %', 100);
    await say('20 %', 100);
    progress.end();
    progress.end();
    expect(lines).to.deep.equal(['waiting for its turn', '10 %', '20 %']);
  });

  const filling: RebuildProgress = { name: 'cache', phase: 'filling', seq: 500, first: 1, last: 1_000, rate: undefined };
  it('has a bar on a terminal only, and no rate before there is one', () => {
    expect(rebuildLine(filling, true)).to.equal('cache ██████████░░░░░░░░░░ 50 %, at 500 of 1,000');
    expect(rebuildLine({ ...filling, rate: 50 }, false)).to.equal('cache 50 %, at 500 of 1,000, 50 events/s, 10 s left');
    expect(rebuildLine({ ...filling, rate: 0 }, false)).to.equal('cache 50 %, at 500 of 1,000, 0 events/s');
    const copy = { table: 'public.t', oid: 1, state: 'running', rows: 30, total: 60 } as const;
    expect(progressText(copy, true)).to.equal('public.t ██████████░░░░░░░░░░ 50 %, 30 of about 60 rows');
    expect(progressText({ ...copy, speed: 10 }, false)).to.equal('public.t 50 %, 30 of about 60 rows, 10 rows/s, 3 s left');
  });

  it('of a replay with a filter tells how fast the log is read, not how often something matches', () => {
    const meter = new ReplayMeter({ first: 1, last: 100_000 }, false);
    let text = '';
    for (let now = 0; now <= 4_000; now += 200) text = meter.text({ next: now * 10 + 1, events: 1, read: now * 5 }, now);
    expect(text).to.equal('40 %, 1 event, 5,000 read/s, at sequence 40,000 of 100,000, 6 s left');
    expect(new ReplayMeter({ first: 1, last: 9 }, false).text({ next: 2, events: 0, read: 1 }, 0)).to.equal(
      '11 %, 0 events, at sequence 1 of 9',
    );
  });

  it('speaks of one thing as of one', () => {
    expect([plural(0, 'letter'), plural(1, 'letter'), plural(1_234, 'letter')]).to.deep.equal(['0 letters', '1 letter', '1,234 letters']);
    expect(endText({ table: 'public.t', oid: 1, state: 'done', rows: 1 })).to.equal('public.t: 1 row is in the log.');
    const outcomes = { applied: 1, superseded: 0, unneeded: 0, failed: 0, gone: 0 };
    expect(summaryLines({ asked: 1, already: 0, waiting: 0, outcomes, notes: [] })).to.deep.equal(['1 letter: 1 applied']);
    const outcome = { name: 'cache', flipped: false, offset: { seq: 9, epoch: 'e' }, events: 1, seconds: 1, fillSeconds: 1 };
    const comparison = { compared: 0, differences: 0, listed: [], moving: 0 };
    expect(outcomeLine({ ...outcome, comparison }, 'rebuild cache')).to.match(/^cache: 1 event in 1 s/);
  });
});
