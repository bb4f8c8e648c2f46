import { expect } from 'chai';
import type { CachedRow, RowSource } from '../../pipeline/runner/row-source.ts';
import { HeadwaterError } from '../../pipeline/runtime/errors.ts';
import { memoryHarness, price, TestClient, until, type Frame } from './support/harness.ts';

/** Rows that are a fold of the events, as of a position, while some have been written since. */
function rowsOf(rows: readonly CachedRow[], seq: number, failing = false): RowSource {
  return {
    position: () => Promise.resolve({ seq, epoch: 'epoch-1', from: 1 }),
    holds: (table) => Promise.resolve(table === 'public.prices'),
    async *rows() {
      for (let i = 0; i < rows.length; i += 100) {
        yield await Promise.resolve(rows.slice(i, i + 100));
        if (failing) throw new Error('the cache went away');
      }
    },
  };
}

describe('gateway, snapshot then stream', () => {
  const events = Array.from({ length: 2_000 }, (_, i) =>
    price(`eth:${i % 1_000}`, `${i}.${'0'.repeat(600)}`, { before: { token_id: 'eth:7' } }),
  );
  /** Row n was written by event 1001 + n, and the cache is as of 1900 though it holds newer rows. */
  const rows = events.slice(1_000).map(({ data }, i) => ({ seq: 1_001 + i, event: data }));

  it('sends the current rows that match as of a position in pages, then every event after it', async () => {
    const at = await memoryHarness({ events, parts: { rows: rowsOf(rows, 1_900) } });
    const client = await TestClient.open(at.gateway);
    expect(await client.subscribe({ sub: 'a', channel: 'prices', snapshot: true })).to.include({ start: 1_901 });
    await client.next('caught_up');
    const pages = client.frames.filter(({ type }) => type === 'snapshot');
    const seqs = pages.flatMap((page) => (page['items'] as Frame[]).map(({ seq }) => seq));
    expect(seqs).to.deep.equal(Array.from({ length: 900 }, (_, i) => 1_001 + i));
    expect(pages.map(({ more }) => more)).to.deep.equal([...pages.slice(1).map(() => true), false]);
    expect(pages.length).to.be.greaterThan(1);
    expect(pages[0]).to.include({ asOf: 1_900, sub: 'a' });
    await at.log.append([price('eth:1', 1)], 2_000);
    await until(() => client.seqs().length === 101);
    expect(client.seqs()).to.deep.equal(Array.from({ length: 101 }, (_, i) => 1_901 + i));
    await at.stop();
  });

  it('filters rows by what they are, not by what they were', async () => {
    const at = await memoryHarness({ events, parts: { rows: rowsOf(rows, 2_000) } });
    const client = await TestClient.open(at.gateway);
    await client.subscribe({ sub: 'a', channel: 'prices', snapshot: true, filter: { tokenIds: ['eth:7'] } });
    const page = await client.next('snapshot');
    expect((page['items'] as Frame[]).map(({ seq }) => seq)).to.deep.equal([1_008]);
    await at.stop();
  });

  it('sends rows of before a rebuild or of after it, never some of each', async () => {
    for (const given of [0, 600]) {
      let making = 'old';
      const source: RowSource = {
        position: () => Promise.resolve({ seq: 1_900, epoch: 'epoch-1', from: 1, making }),
        holds: () => Promise.resolve(true),
        async *rows(_table, { of } = {}) {
          if (of?.making === 'old' && making === 'old') {
            yield await Promise.resolve(rows.slice(0, Math.max(given, 1)));
            making = 'new';
          }
          if (of?.making !== making) throw new HeadwaterError('rows_interrupted', 'rebuilt');
          yield rows;
        },
      };
      const at = await memoryHarness({ events, parts: { rows: source } });
      const client = await TestClient.open(at.gateway);
      expect(await client.subscribe({ sub: 'a', channel: 'prices', snapshot: true })).to.include({ start: 1_901 });
      const sent = (): number[] =>
        client.frames
          .filter(({ type }) => type === 'snapshot')
          .flatMap((page) => (page['items'] as Frame[]).map(({ seq }) => seq as number));
      if (given === 0) {
        // Nothing had been sent: it begins again.
        await client.next('caught_up');
        expect(sent()).to.deep.equal(Array.from({ length: 900 }, (_, i) => 1_001 + i));
      } else {
        expect(await client.next('error')).to.include({ code: 'snapshot_unavailable', sub: 'a' });
        expect(sent().length).to.be.within(1, 600);
        expect(await client.subscribe({ sub: 'again', channel: 'prices', snapshot: true })).to.include({ start: 1_901 });
        await client.next('caught_up');
      }
      await at.stop();
    }
  });

  it('says snapshot_unavailable without a cache, for a table it does not hold, and when it fails in the middle', async () => {
    const without = await memoryHarness({ events });
    let client = await TestClient.open(without.gateway);
    expect(await client.subscribe({ sub: 'a', channel: 'prices', snapshot: true })).to.include({ code: 'snapshot_unavailable' });
    await without.stop();
    const at = await memoryHarness({ events, parts: { rows: rowsOf(rows, 2_000, true) } });
    client = await TestClient.open(at.gateway);
    expect(await client.subscribe({ sub: 'a', channel: 'tvl', snapshot: true })).to.include({ code: 'snapshot_unavailable' });
    expect(await client.subscribe({ sub: 'b', channel: 'prices', snapshot: true })).to.include({ type: 'subscribed' });
    expect(await client.next('error')).to.include({ code: 'snapshot_unavailable', sub: 'b' });
    expect(await client.next('unsubscribed')).to.include({ sub: 'b' });
    expect(client.frames.some((frame) => frame['more'] === false)).to.equal(false);
    await at.stop();
  });
});
