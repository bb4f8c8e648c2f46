import { expect } from 'chai';
import { setImmediate as turn } from 'node:timers/promises';
import { GroupCommit } from '../../pipeline/runner/group-commit.ts';
import { rowEvent } from '../support/row-events.ts';

/** Commits that are answered when the test says so, as lists of the sequences in them. */
class Commits {
  readonly begun: number[][] = [];
  readonly #answers: (() => void)[] = [];
  readonly group: GroupCommit<number[]>;
  #seq = 0;

  constructor(mostUnderWay: number) {
    this.group = new GroupCommit<number[]>({
      begin: () => [],
      commit: (seqs) => {
        this.begun.push(seqs);
        return new Promise((resolve) => this.#answers.push(resolve));
      },
      stored: { seq: 0, epoch: 'e' },
      limits: { events: 3, bytes: 1_000_000 },
      mostUnderWay,
      onFailure: () => undefined,
    });
  }

  /** Applies so many events, and sends. */
  add(count: number): void {
    for (let n = 0; n < count; n++) {
      this.group.effects.push(++this.#seq);
      this.group.add({ ...rowEvent(this.#seq, 'insert', {}), seq: this.#seq });
    }
    this.group.send();
  }

  async answer(): Promise<void> {
    this.#answers.shift()!();
    await turn();
  }
}

describe('group commit', () => {
  for (const most of [1, 2]) {
    it(`has single events wait while one is under way, and go together, where ${most} may be`, async () => {
      const commits = new Commits(most);
      commits.add(1);
      commits.add(1);
      commits.add(1);
      expect(commits.begun).to.deep.equal([[1]]);
      await commits.answer();
      expect(commits.begun).to.deep.equal([[1], [2, 3]]);
      expect(commits.group.stored.seq).to.equal(1);
    });
  }

  it('has full batches follow at once where two may be under way, and no third', async () => {
    const commits = new Commits(2);
    commits.add(3);
    commits.add(3);
    commits.add(3);
    expect(commits.begun).to.deep.equal([
      [1, 2, 3],
      [4, 5, 6],
    ]);
    let room = false;
    void commits.group.room().then(() => (room = true));
    await turn();
    expect(room).to.equal(false);
    await commits.answer();
    expect(room).to.equal(true);
    expect(commits.begun.at(-1)).to.deep.equal([7, 8, 9]);
    expect(commits.group.stored.seq).to.equal(3);
  });

  it('has a full batch wait where one may be under way', async () => {
    const commits = new Commits(1);
    commits.add(3);
    commits.add(3);
    expect(commits.begun).to.deep.equal([[1, 2, 3]]);
    await commits.answer();
    expect(commits.begun.at(-1)).to.deep.equal([4, 5, 6]);
  });

  it('is through when all that was under way is', async () => {
    const commits = new Commits(2);
    commits.add(3);
    commits.add(3);
    commits.add(1);
    let flushed = false;
    void commits.group.flush().then(() => (flushed = true));
    for (const done of [false, false, true]) {
      await commits.answer();
      expect(flushed).to.equal(done);
    }
    expect(commits.group.stored.seq).to.equal(7);
  });
});
