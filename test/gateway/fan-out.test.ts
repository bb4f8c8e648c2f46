import { expect } from 'chai';
import fc from 'fast-check';
import { Channels } from '../../gateway/channels.ts';
import { FanOut, type LiveSubscription } from '../../gateway/fan-out.ts';
import { defiCatalog } from '../../schemas/catalog-file.ts';
import { matches, parseFilter, type FilterableEvent } from '../../schemas/filter.ts';

const channels = new Channels(defiCatalog());
const { tables } = channels.get('liquidations')!;
const few = (prefix: string): fc.Arbitrary<string> => fc.integer({ min: 0, max: 3 }).map((n) => `${prefix}${n}`);
const some = (prefix: string): fc.Arbitrary<string[]> => fc.uniqueArray(few(prefix), { minLength: 1, maxLength: 3 });
const filter = fc.record(
  {
    protocolIds: some('p'),
    tokenIds: some('t'),
    chains: some('c'),
    userId: few('u'),
    minValue: fc.integer({ min: 0, max: 9 }),
    types: fc.constant(['liquidation']),
  },
  { requiredKeys: [] },
);
const row = fc.record(
  {
    protocol_slug: few('p'),
    collateral_token: few('t'),
    chain: fc.option(few('c')),
    user_address: few('u'),
    amount_usd: fc.integer({ min: 0, max: 9 }),
    other: fc.string(),
  },
  { requiredKeys: [] },
);
const body = fc.record(
  { op: fc.constantFrom('insert', 'update', 'delete', 'truncate'), after: row, before: row, key: row },
  { requiredKeys: ['op'] },
);

describe('fan-out', () => {
  it('delivers what a look at every subscription would, once a receiver, through joins and leaves', () => {
    const action = fc.oneof(
      { weight: 3, arbitrary: fc.record({ join: filter, receiver: fc.nat(5) }) },
      { weight: 1, arbitrary: fc.record({ leave: fc.nat(100) }) },
      { weight: 3, arbitrary: fc.record({ event: body }) },
    );
    fc.assert(
      fc.property(fc.array(action, { maxLength: 40 }), (actions) => {
        const fanOut = new FanOut();
        const got = new Map<number, number[]>();
        const receivers = Array.from({ length: 6 }, (_, i) => ({
          lastLive: 0,
          pushLive: () => void got.set(i, [...(got.get(i) ?? []), seq]),
        }));
        const live: LiveSubscription[] = [];
        let seq = 0;
        for (const step of actions) {
          if ('join' in step) {
            const subscription = {
              channel: 'liquidations',
              filter: parseFilter(step.join, tables, { maxValues: 99 }),
              receiver: receivers[step.receiver]!,
            };
            live.push(subscription);
            fanOut.join(subscription);
          } else if ('leave' in step) {
            const [gone] = live.splice(step.leave % Math.max(1, live.length), 1);
            if (gone) fanOut.leave(gone);
          } else {
            seq++;
            got.clear();
            const content = { type: 'liquidation', table: 'public.liquidations', ...step.event };
            const event = channels.read({
              seq,
              subject: `ev.public.liquidations.${content.op}`,
              data: Buffer.from(JSON.stringify(content)),
            });
            const wanted = new Set(
              live
                .filter(({ filter: wantedFilter }) => matches(wantedFilter, content as FilterableEvent))
                .map(({ receiver }) => receivers.indexOf(receiver as (typeof receivers)[number])),
            );
            expect(fanOut.deliver(event)).to.equal(wanted.size);
            expect(new Set(got.keys())).to.deep.equal(wanted);
            for (const seqs of got.values()) expect(seqs).to.deep.equal([seq]);
          }
          expect(fanOut.size).to.equal(live.length);
        }
      }),
      { numRuns: 500 },
    );
  });
});
