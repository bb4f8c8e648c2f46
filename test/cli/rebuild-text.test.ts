import { expect } from 'chai';
import { pauseLines } from '../../cli/rebuild-text.ts';

describe('text of a rebuild', () => {
  it('warns of a flip in which the store answers nobody for long, and says how to do it in a quiet hour', () => {
    const [line, ...more] = pauseLines('cache', { rows: 200_000, ms: 5_000 });
    expect(line).to.contain('200,000 rows').and.contain('about 5 s').and.contain('rebuild cache --no-flip');
    expect(more).to.deep.equal([]);
  });

  it('does not warn of a short one', () => {
    expect(pauseLines('cache', { rows: 99_000, ms: 2_475 })).to.deep.equal([]);
  });
});
