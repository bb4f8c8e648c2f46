import { expect } from 'chai';
import { Follower } from '../../../gateway/query/follower.ts';
import type { LogEvent } from '../../../pipeline/log/event-log.ts';
import { silentLogger } from '../../../pipeline/runtime/logging.ts';

const event = (seq: number, table: string): LogEvent => ({
  seq,
  subject: `ev.public.${table}.update`,
  data: Buffer.from(`{"key":{"id":1},"after":{"id":1},"tx":{"xid":${700 + seq},"idx":0,"last":true},"at":"2026-11-22T12:00:00Z"}`),
});

describe('queries: what a node has read of the log', () => {
  it('counts as changed throughout while its position is lost, also when it has another one and not yet an event', () => {
    const tail = { position: 0, epoch: 'one', epochStart: 1, ready: true, reached: () => Promise.resolve() };
    const unasked = (): Promise<never> => new Promise(() => undefined);
    const follower = new Follower({ tail, standing: unasked, snapshot: unasked, log: silentLogger() });
    const row = { table: 'public.things', pins: { columns: ['id'], values: [['1']] } };
    const last = (): number[] => [follower.lastChange({ table: 'public.things' }), follower.lastChange(row)];
    try {
      expect(last()).to.deep.equal([0, 0]);
      tail.position = 3;
      follower.observe([event(1, 'others'), event(2, 'things'), event(3, 'others')]);
      expect(follower.lastChange({ table: 'public.things' })).to.equal(2);
      // What was read is forgotten; the same log is followed from its end, as soon as that is known.
      tail.ready = false;
      follower.lost();
      for (const seq of last()) expect(seq).to.be.above(tail.position);
      tail.position = 50;
      tail.epoch = 'two';
      for (const seq of last()) expect(seq).to.be.above(tail.position);
      tail.ready = true;
      expect(last()).to.deep.equal([50, 50]);
      tail.position = 51;
      follower.observe([event(51, 'others')]);
      expect(last()).to.deep.equal([50, 50]);
    } finally {
      follower.close();
    }
    for (const seq of last()) expect(seq).to.be.above(tail.position);
  });
});
