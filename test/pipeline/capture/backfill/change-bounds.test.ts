import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect } from 'chai';
import { ChangeTracker, type Logged } from '../../../../pipeline/capture/backfill/change-tracker.ts';
import { keyString } from '../../../../pipeline/capture/backfill/row-change.ts';
import { Visibility } from '../../../../pipeline/capture/visibility.ts';

const table = 'public.t';
const key = (id: number): string => keyString(`{"id":${id}}`);
/** A snapshot that sees all transactions below `xmax`. */
const seesBelow = (xmax: number): Visibility => new Visibility(`${xmax}:${xmax}:`);

/** Updates of rows 1 to `rows` by one transaction; with `part`, each gets another key, and has not its large value. */
function* updates(xid: number, rows: number, part = false): Generator<Logged> {
  const rest = part ? ',"unchanged":["big"]' : '';
  for (let id = 1; id <= rows; id++) {
    const after = part ? id + rows : id;
    yield {
      data: Buffer.from(`{"op":"update","table":"${table}","key":{"id":${after}},"after":{"id":${after}},"before":{"id":${id}}${rest}}`),
      xid,
      table,
    };
  }
}

function logged(tracker: ChangeTracker, events: Iterable<Logged>, from = 1): void {
  let seq = from;
  for (const event of events) tracker.logged([event], seq++);
}

/** How much more memory is held after some work than before, in MiB. */
function heldBy(work: () => void): number {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const held = (): number => {
    collect();
    const { heapUsed, external } = process.memoryUsage();
    return (heapUsed + external) / 2 ** 20;
  };
  const before = held();
  work();
  return held() - before;
}

describe('change tracker: what it keeps is bounded', function () {
  this.timeout(30_000);
  let tracker: ChangeTracker;
  beforeEach(() => {
    tracker = new ChangeTracker();
    tracker.track(table);
  });

  it('of a transaction that changes very many rows it keeps little, and a chunk that does not see it is to be read again', () => {
    const held = heldBy(() => logged(tracker, updates(10, 300_000)));
    expect(held, 'MiB').to.be.lessThan(10);
    expect(tracker.knows(table, seesBelow(10)), 'a chunk of before').to.equal(false);
    expect(tracker.isQuiet(table)).to.equal(false);
    expect(tracker.knows(table, seesBelow(11)), 'one that sees it').to.equal(true);
    tracker.forgetChanges(seesBelow(11));
    expect(tracker.isQuiet(table), 'and forgets it').to.equal(true);
    logged(tracker, updates(11, 3), 2_000_000);
    expect(tracker.knows(table, seesBelow(11)), 'what comes later is known by its keys').to.equal(true);
    expect([1, 4].map((id) => tracker.outdated(table, key(id), seesBelow(11)))).to.deep.equal([true, false]);
  });

  it('keeps nothing that the last chunk has seen, but the rows that moved', () => {
    tracker.forgetChanges(seesBelow(11));
    logged(tracker, updates(10, 1_000));
    expect(tracker.isQuiet(table)).to.equal(true);
    logged(tracker, updates(10, 3, true), 2_000);
    expect(tracker.isQuiet(table)).to.equal(true);
    expect(tracker.moved(table).map((moved) => moved.key['id'])).to.deep.equal([4, 5, 6]);
    logged(tracker, updates(11, 1), 3_000);
    expect(tracker.outdated(table, key(1), seesBelow(11)), 'what it has not seen').to.equal(true);
  });

  it('of rows that moved it keeps so many, and asks for a copy from the beginning when there are more', () => {
    const held = heldBy(() => logged(tracker, updates(10, 100_000, true)));
    expect(held, 'MiB').to.be.lessThan(10);
    expect([tracker.moved(table).length, tracker.lostMoved(table)]).to.deep.equal([0, true]);
    tracker.beginMoved(table, seesBelow(10));
    expect(tracker.lostMoved(table), 'a first chunk that does not see them').to.equal(true);
    tracker.beginMoved(table, seesBelow(11));
    expect(tracker.lostMoved(table), 'one that does').to.equal(false);
  });

  it('keeps no more than 16 MB of events that have only a part of their rows', () => {
    const big = 'x'.repeat(100_000);
    for (let id = 1; id <= 300; id++)
      tracker.logged(
        [{ data: Buffer.from(`{"op":"update","key":{"id":${id}},"after":{"id":${id},"v":"${big}"},"unchanged":["b"]}`), xid: 10, table }],
        id,
      );
    expect(tracker.knows(table, seesBelow(10))).to.equal(false);
  });
});
