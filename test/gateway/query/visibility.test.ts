import { expect } from 'chai';
import fc from 'fast-check';
import { UnseenTransactions, type Reading } from '../../../gateway/query/visibility.ts';
import { Visibility } from '../../../pipeline/capture/visibility.ts';

/** Numbers go round in the middle of a history. */
const firstXid = 5 * 2 ** 32 - 6;
const low = (xid: number): number => xid % 2 ** 32;

/** A database whose transactions reach the log and become visible independently of each other. */
class Database {
  #next = firstXid;
  readonly open: number[] = [];
  readonly logged: number[] = [];
  readonly #invisible = new Set<number>();
  #completed = firstXid - 1;

  begin(): void {
    this.open.push(this.#next);
    this.#invisible.add(this.#next++);
  }

  show(xid: number): void {
    this.#invisible.delete(xid);
    this.#completed = Math.max(this.#completed, xid);
  }

  sees(xid: number): boolean {
    return !this.#invisible.has(xid);
  }

  get nextXid(): number {
    return this.#next;
  }

  snapshot(): string {
    const xmax = this.#completed + 1;
    const under = [...this.#invisible].filter((xid) => xid < xmax);
    return `${Math.min(xmax, ...under)}:${xmax}:${under.join(',')}`;
  }
}

interface Open {
  readonly reading: Reading;
  readonly began: number;
  taken?: { readonly text: string; readonly visible: (xid: number) => boolean };
}

type Step = 'begin' | 'log' | 'show' | 'copy' | 'message' | 'read' | 'snapshot' | 'end';
const steps = fc.array(
  fc.record({
    step: fc.oneof(
      { weight: 3, arbitrary: fc.constantFrom<Step>('begin', 'log', 'show') },
      { weight: 3, arbitrary: fc.constantFrom<Step>('read', 'snapshot', 'end') },
      { weight: 1, arbitrary: fc.constantFrom<Step>('copy', 'message') },
    ),
    which: fc.nat(1_000),
    events: fc.integer({ min: 1, max: 3 }),
  }),
  { minLength: 1, maxLength: 120, size: 'max' },
);

/** Runs a history. `check` gets what was claimed, what would be right, and where the log stood. */
function run(
  history: readonly { step: Step; which: number; events: number }[],
  unseen: UnseenTransactions,
  check: (claimed: number | undefined, right: number) => void,
  { floor = 0, prime = true } = {},
): { database: Database; events: { seq: number; xid: number | undefined; copied: boolean }[]; seq: () => number } {
  const database = new Database();
  const events: { seq: number; xid: number | undefined; copied: boolean }[] = [];
  const readings: Open[] = [];
  let seq = floor;
  unseen.reset(floor);
  if (prime) unseen.prime(undefined);
  const note = (xid: number | undefined, copied: boolean): void => {
    events.push({ seq: ++seq, xid, copied });
    unseen.note(seq, xid === undefined ? undefined : low(xid), copied);
  };
  const pick = <T>(from: readonly T[], which: number): T | undefined => from[which % Math.max(1, from.length)];
  for (const { step, which, events: count } of history) {
    const open = pick(readings, which);
    const committed = pick(database.open, which);
    if (step === 'begin') database.begin();
    else if (step === 'log' && committed !== undefined) {
      database.open.splice(database.open.indexOf(committed), 1);
      database.logged.push(committed);
      for (let i = 0; i < count; i++) note(committed, false);
    } else if (step === 'show') {
      // Mostly what has been logged; sometimes what will be.
      const xid = which % 4 === 0 ? committed : pick(database.logged, which >> 2);
      if (xid !== undefined) database.show(xid);
    } else if (step === 'copy') note(undefined, true);
    else if (step === 'message') note(undefined, false);
    else if (step === 'read') readings.push({ reading: unseen.begin(), began: seq });
    else if (step === 'snapshot' && open && !open.taken) {
      const visible = new Set([...database.open, ...database.logged].filter((xid) => database.sees(xid)));
      open.taken = { text: database.snapshot(), visible: (xid) => visible.has(xid) };
    } else if (step === 'end' && open) {
      readings.splice(readings.indexOf(open), 1);
      const { taken } = open;
      const claimed = unseen.end(open.reading, taken && new Visibility(taken.text));
      if (!taken) {
        expect(claimed).to.equal(undefined);
        continue;
      }
      const missing = events.find((event) =>
        event.xid === undefined ? event.copied && event.seq > open.began : !taken.visible(event.xid),
      );
      check(claimed, missing ? missing.seq - 1 : seq);
    }
  }
  return { database, events, seq: () => seq };
}

describe('queries: what a reading of the database holds', () => {
  it('is everything up to the first event that its own snapshot does not see, however readings overlap', () => {
    fc.assert(
      fc.property(steps, fc.nat(5), (history, floor) => {
        run(
          history,
          new UnseenTransactions(),
          // The first transaction that is known may have begun before.
          (claimed, right) => expect(claimed).to.equal(right === floor && claimed === undefined ? undefined : right),
          { floor },
        );
      }),
      { numRuns: 2_000 },
    );
  });

  it('is never more than that when there are too many transactions to remember, and is known again when they have ended', () => {
    fc.assert(
      fc.property(steps, (history) => {
        const unseen = new UnseenTransactions(3);
        const { database, seq } = run(history, unseen, (claimed, right) => expect(claimed ?? 0).to.be.at.most(right));
        expect(unseen.size).to.be.at.most(3);
        for (const xid of [...database.logged, ...database.open]) database.show(xid);
        expect(unseen.end(unseen.begin(), new Visibility(database.snapshot()))).to.equal(seq());
      }),
      { numRuns: 1_000 },
    );
  });

  it('forgets what all later readings see, also while readings overlap without end', () => {
    const unseen = new UnseenTransactions();
    unseen.reset(0);
    unseen.prime(undefined);
    let previous = unseen.begin();
    for (let xid = 100; xid < 5_000; xid++) {
      unseen.note(xid - 99, xid, false);
      const next = unseen.begin();
      unseen.end(previous, new Visibility(`${xid + 1}:${xid + 1}:`));
      previous = next;
    }
    expect(unseen.size).to.be.lessThan(10);
  });

  it('is unknown until the transactions of before the first known event have ended, if they may not be visible', () => {
    const unseen = new UnseenTransactions();
    unseen.reset(50);
    unseen.note(51, 120, false);
    const at = (snapshot: string): number | undefined => unseen.end(unseen.begin(), new Visibility(snapshot));
    expect(at('200:200:'), 'nobody has said what is under way').to.equal(undefined);
    unseen.prime(130);
    expect([at('110:125:110'), at('129:131:129'), at('130:131:130')]).to.deep.equal([undefined, undefined, 51]);
  });

  it('of before the position was lost is nothing', () => {
    const unseen = new UnseenTransactions();
    unseen.reset(0);
    unseen.prime(undefined);
    const reading = unseen.begin();
    unseen.reset(0);
    unseen.prime(undefined);
    unseen.note(1, 10, false);
    expect(unseen.end(reading, new Visibility('11:11:'))).to.equal(undefined);
    expect(unseen.end(unseen.begin(), new Visibility('11:11:'))).to.equal(1);
  });
});
