import { expect } from 'chai';
import { pauseLines } from '../../cli/rebuild-text.ts';

describe('text of a rebuild', () => {
  const comparison = { compared: 400_000, listed: [], moving: 20_000 };

  it('warns of a flip in which the store answers nobody for long, and says how to do it in a quiet hour', () => {
    const [line, ...more] = pauseLines('cache', { ...comparison, differences: 180_000, pauseMs: 5_000 });
    expect(line).to.contain('200,000 rows').and.contain('about 5 s').and.contain('rebuild cache --no-flip');
    expect(more).to.deep.equal([]);
  });

  it('does not warn of a short one, or where it is one write whatever differs', () => {
    expect(pauseLines('cache', { ...comparison, differences: 79_000, pauseMs: 2_475 })).to.deep.equal([]);
    expect(pauseLines('alerts', { ...comparison, differences: 5_000_000 })).to.deep.equal([]);
  });
});
