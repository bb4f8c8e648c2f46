import { expect } from 'chai';
import { connectionsStatus, problemsOf, type Status } from '../../cli/status.ts';

type Parts = Omit<Status, 'healthy' | 'problems' | 'connections'>;

function healthy(): Parts {
  return {
    log: { first: 101, last: 200, epoch: 'e', epochStart: 1, bytes: 1, messages: 100, lastAt: new Date().toISOString() },
    slot: { name: 'headwater', active: true, retainedBytes: 1_000, confirmedFlushLsn: '0/1', walStatus: 'reserved' },
    processors: [{ name: 'cache', seq: 198, epoch: 'e', lagEvents: 2, lagSeconds: 0.1 }],
    deadLetters: 0,
    alerts: { rules: 3, pending: 1, firing: 1, outbox: 1, outboxSeconds: 0.2, undelivered: 900, undeliveredSeconds: 3_600 },
  };
}

function problems(change: (parts: Parts) => Parts): string {
  return problemsOf(change(healthy()), 1_000).join('\n');
}

function cacheAt(change: Partial<NonNullable<Parts['processors']>[number]>): (parts: Parts) => Parts {
  return (parts) => ({ ...parts, processors: [{ name: 'cache', seq: 198, epoch: 'e', lagEvents: 2, lagSeconds: 0.1, ...change }] });
}

describe('headwater status', () => {
  it('finds nothing wrong with a healthy system, nor with a part that was not asked', () => {
    expect(problems((parts) => parts)).to.equal('');
    expect(
      problemsOf({ log: undefined, slot: undefined, processors: undefined, deadLetters: undefined, alerts: undefined }, 1_000),
    ).to.deep.equal([]);
  });

  it('names a slot that is not used, is losing WAL, or holds too much of it', () => {
    const slot = (change: Partial<NonNullable<Parts['slot']>>) => problems((parts) => ({ ...parts, slot: { ...parts.slot!, ...change } }));
    expect(slot({ active: false })).to.match(/not in use/);
    expect(slot({ walStatus: 'lost' })).to.match(/resnapshot/);
    expect(slot({ walStatus: 'unreserved' })).to.match(/about to be removed/);
    expect(slot({ retainedBytes: 5 * 1024 ** 3 })).to.match(/5120 MB/);
  });

  it('names a processor that is behind, before the oldest event, beyond the end, or of another history', () => {
    expect(problems(cacheAt({ lagSeconds: 61 }))).to.match(/cache is 2 events and 61 s behind/);
    expect(problems(cacheAt({ seq: 99 }))).to.match(/before the oldest event/);
    expect(problems(cacheAt({ seq: 100 }))).to.equal('');
    expect(problems(cacheAt({ seq: 201 }))).to.match(/beyond the end/);
    expect(problems(cacheAt({ epoch: 'other' }))).to.match(/epoch other/);
  });

  it('adds connections up by key, the busiest first', () => {
    const record = (keyId: string, subscriptions: number) => ({ connection: `${keyId}${subscriptions}`, keyId, since: 1, subscriptions });
    expect(connectionsStatus([record('a', 1), record('b', 2), record('b', 0), record('c', 5)])).to.deep.equal({
      connections: 4,
      subscriptions: 8,
      keys: [
        { keyId: 'b', connections: 2, subscriptions: 2 },
        { keyId: 'a', connections: 1, subscriptions: 1 },
        { keyId: 'c', connections: 1, subscriptions: 5 },
      ],
    });
  });

  it('names alerts that nobody plans notifications for, but not a receiver that is away', () => {
    const waiting = (outboxSeconds: number): string =>
      problems((parts) => ({ ...parts, alerts: { ...parts.alerts!, outbox: 7, outboxSeconds } }));
    expect(waiting(29)).to.equal('');
    expect(waiting(31)).to.match(/7 alerts wait .* 31 s: is notify running/);
  });

  it('names silence and dead letters, and allows for slow ticks', () => {
    const silent = (seconds: number, tickMs: number) => {
      const parts = healthy();
      return problemsOf({ ...parts, log: { ...parts.log!, lastAt: new Date(Date.now() - seconds * 1_000).toISOString() } }, tickMs).join();
    };
    expect(silent(40, 1_000)).to.match(/nothing has been logged for 40 s/);
    expect(silent(40, 10_000)).to.equal('');
    expect(problems((parts) => ({ ...parts, deadLetters: 2 }))).to.match(/2 dead letters/);
  });
});
