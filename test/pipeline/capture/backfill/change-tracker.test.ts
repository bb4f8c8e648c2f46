import { expect } from 'chai';
import { ChangeTracker, type Logged } from '../../../../pipeline/capture/backfill/change-tracker.ts';
import { keyString } from '../../../../pipeline/capture/backfill/row-change.ts';
import { Visibility } from '../../../../pipeline/capture/visibility.ts';

const table = 'public.t';
const key = (id: number): string => keyString(JSON.stringify({ id }));
/** A snapshot that sees all transactions below `xmax` but those named. */
const seesAllBut = (xmax: number, ...open: number[]): Visibility => new Visibility(`${Math.min(xmax, ...open)}:${xmax}:${open.join(',')}`);

function logged(xid: number | undefined, body: object, of = table): Logged {
  return { data: Buffer.from(JSON.stringify(body)), xid, table: of };
}

function tracking(): ChangeTracker {
  const tracker = new ChangeTracker();
  tracker.track(table);
  return tracker;
}

describe('change tracker: rows that a chunk must not overwrite', () => {
  it('calls a row outdated if a logged transaction changed it that the snapshot does not see', () => {
    const tracker = tracking();
    tracker.logged([logged(10, { op: 'update', key: { id: 1 }, after: { id: 1, v: 'new' } })], 1);
    expect(tracker.outdated(table, key(1), seesAllBut(10)), 'not yet begun').to.equal(true);
    expect(tracker.outdated(table, key(1), seesAllBut(12, 10)), 'under way').to.equal(true);
    expect(tracker.outdated(table, key(1), seesAllBut(11)), 'seen').to.equal(false);
    expect(tracker.outdated(table, key(2), seesAllBut(10)), 'another row').to.equal(false);
    expect(tracker.outdated('public.other', key(1), seesAllBut(10)), 'another table').to.equal(false);
  });

  it('knows a row by its old key and by its new one', () => {
    const tracker = tracking();
    tracker.logged([logged(10, { op: 'update', key: { id: 2 }, after: { id: 2 }, before: { id: 1 } })], 1);
    expect([1, 2, 3].map((id) => tracker.outdated(table, key(id), seesAllBut(10)))).to.deep.equal([true, true, false]);
  });

  it('knows a deleted row', () => {
    const tracker = tracking();
    tracker.logged([logged(10, { op: 'delete', key: { id: 1 }, before: { id: 1 } })], 1);
    expect(tracker.outdated(table, key(1), seesAllBut(10))).to.equal(true);
  });

  it('calls every row outdated by a truncate that the snapshot does not see', () => {
    const tracker = tracking();
    tracker.logged([logged(10, { op: 'truncate' })], 1);
    expect(tracker.outdated(table, key(77), seesAllBut(10))).to.equal(true);
    expect(tracker.outdated(table, key(77), seesAllBut(11))).to.equal(false);
  });

  it('remembers every transaction of a row, also when a later one is seen and an earlier one is not', () => {
    const tracker = tracking();
    tracker.logged([logged(10, { op: 'update', key: { id: 1 } }), logged(11, { op: 'update', key: { id: 1 } })], 1);
    expect(tracker.outdated(table, key(1), seesAllBut(12, 10))).to.equal(true);
    expect(tracker.outdated(table, key(1), seesAllBut(12, 11))).to.equal(true);
  });

  it('forgets only what a snapshot sees', () => {
    const tracker = tracking();
    tracker.logged(
      [logged(10, { op: 'update', key: { id: 1 } }), logged(11, { op: 'update', key: { id: 2 } }), logged(12, { op: 'truncate' })],
      1,
    );
    tracker.forgetChanges(seesAllBut(13, 11, 12));
    const before = seesAllBut(10);
    expect(
      [1, 2].map((id) => tracker.outdated(table, key(id), before)),
      'all of them by the truncate',
    ).to.deep.equal([true, true]);
    tracker.forgetChanges(seesAllBut(13, 11));
    expect([1, 2].map((id) => tracker.outdated(table, key(id), before))).to.deep.equal([false, true]);
  });

  it('keeps the changes of rows when transactions are forgotten, for a chunk that was read before', () => {
    const tracker = tracking();
    tracker.logged([logged(10, { op: 'update', key: { id: 1 } })], 1);
    tracker.forgetTransactions(seesAllBut(11));
    expect(tracker.outdated(table, key(1), seesAllBut(10))).to.equal(true);
  });

  it('says from where the log holds transactions that no snapshot has been known to see', () => {
    const tracker = new ChangeTracker();
    expect(tracker.oldestUnseenSeq).to.equal(undefined);
    tracker.logged(
      [
        logged(10, { op: 'insert', key: { id: 1 } }),
        logged(10, { op: 'insert', key: { id: 2 } }),
        logged(11, { op: 'insert', key: { id: 3 } }),
      ],
      500,
    );
    tracker.logged([logged(12, { op: 'insert', key: { id: 4 } })], 503);
    expect(tracker.oldestUnseenSeq).to.equal(500);
    tracker.forgetTransactions(seesAllBut(13, 11));
    expect([tracker.oldestUnseenSeq, tracker.unseen]).to.deep.equal([502, 1]);
    tracker.forgetTransactions(seesAllBut(13));
    expect(tracker.oldestUnseenSeq).to.equal(undefined);
  });

  it('spells a key in one way, whatever its columns hold', () => {
    expect(keyString('{"a":"x","b":1}')).to.equal(keyString('{"a":"x","b":1}'));
    expect(keyString('{"a":"1,2"}')).not.to.equal(keyString('{"a":"1","b":"2"}'));
    expect(keyString('{"a":"1"}')).not.to.equal(keyString('{"a":1}'));
    expect(keyString('{"a":9007199254740993}'), 'numbers that are one in JavaScript').not.to.equal(keyString('{"a":9007199254740992}'));
  });

  it('takes no note of a table that is not under backfill, nor after it is done', () => {
    const tracker = tracking();
    tracker.logged([logged(10, { op: 'update', key: { id: 1 } }, 'public.other')], 1);
    expect(tracker.outdated('public.other', key(1), seesAllBut(10))).to.equal(false);
    tracker.logged([logged(11, { op: 'update', key: { id: 1 } })], 2);
    tracker.untrack(table);
    tracker.track(table);
    expect(tracker.outdated(table, key(1), seesAllBut(10)), 'a new backfill begins with nothing').to.equal(false);
  });

  describe('a row of which the log has only a part', () => {
    const part = { unchanged: ['big'], after: { id: 1 } };
    const update = (xid: number, id: number, rest: object = part, before?: number): Logged =>
      logged(xid, { op: 'update', key: { id }, ...rest, ...(before === undefined ? {} : { before: { id: before } }) });
    const parts = (tracker: ChangeTracker, id: number, snapshot: Visibility): number | undefined =>
      tracker.parts(table, key(id), snapshot)?.length;

    it('has the events that are newer than a snapshot, also under other keys', () => {
      const tracker = tracking();
      // The row at 2 is another one, which makes room.
      tracker.logged(
        [update(10, 2), logged(11, { op: 'delete', key: { id: 2 } }), update(12, 1), update(13, 2, part, 1), update(14, 2)],
        1,
      );
      expect(parts(tracker, 1, seesAllBut(10))).to.equal(3);
      expect(parts(tracker, 1, seesAllBut(13))).to.equal(2);
      expect(parts(tracker, 2, seesAllBut(10)), 'deleted').to.equal(undefined);
      expect(tracker.moved(table)).to.deep.equal([{ key: { id: 2 }, xid: 13 }]);
    });

    it('has them in the order of the log, also when those of before are read back later, or once more', () => {
      const tracker = tracking();
      tracker.logged([update(12, 1)], 30);
      tracker.note(update(10, 1, part, 5), 10);
      tracker.note(update(11, 1, { after: { id: 1, big: 'new' } }), 20);
      tracker.note(update(12, 1), 30);
      expect(parts(tracker, 5, seesAllBut(10)), 'whole on the way').to.equal(undefined);
      expect(parts(tracker, 1, seesAllBut(12)), 'once').to.equal(1);
    });

    it('has them soon also for a row with very many', () => {
      const tracker = tracking();
      const many = Array.from({ length: 40_000 }, () => update(10, 1));
      tracker.logged(many, 1);
      const begun = performance.now();
      expect(parts(tracker, 1, seesAllBut(10))).to.equal(40_000);
      expect(performance.now() - begun, 'ms').to.be.lessThan(1_000);
    });

    it('knows a moved row once, also when it is told of it again', () => {
      const tracker = tracking();
      tracker.logged([update(10, 2, part, 1), update(11, 2, part, 1)], 1);
      tracker.addMoved(table, [...tracker.moved(table), { key: { id: 3 }, xid: 10 }]);
      expect(tracker.moved(table).map((moved) => [moved.key['id'], moved.xid])).to.deep.equal([
        [2, 10],
        [2, 11],
        [3, 10],
      ]);
    });

    it('has none when an event has the row whole, when it is deleted, or when the table is emptied', () => {
      const tracker = tracking();
      tracker.logged([update(10, 1), update(11, 1, { after: { id: 1, big: 'new' } }), update(12, 1)], 1);
      expect(parts(tracker, 1, seesAllBut(10))).to.equal(undefined);
      expect(parts(tracker, 1, seesAllBut(12)), 'only the last is newer').to.equal(1);
      tracker.logged([logged(13, { op: 'delete', key: { id: 1 } })], 4);
      expect(parts(tracker, 1, seesAllBut(12))).to.equal(undefined);
      tracker.logged([update(14, 3), logged(15, { op: 'truncate' })], 5);
      expect(parts(tracker, 3, seesAllBut(14))).to.equal(undefined);
    });
  });
});
