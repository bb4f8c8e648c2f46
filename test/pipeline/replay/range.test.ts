import { expect } from 'chai';
import { connectNats, type NatsConnection } from '../../../pipeline/clients/nats.ts';
import { resolveRange, type RangeRequest } from '../../../pipeline/replay/range.ts';
import type { HeadwaterError } from '../../../pipeline/runtime/errors.ts';
import { silentLogger } from '../../../pipeline/runtime/logging.ts';
import { rowEvent } from '../../support/row-events.ts';
import { testServers } from '../../support/servers.ts';
import type { FreshLog } from '../log/support/fresh-log.ts';
import { filledLog } from './support/replay-log.ts';

const never = new AbortController().signal;
const midnight = Date.UTC(2026, 10, 22) * 1_000;

describe('the range of a replay', () => {
  let connection: NatsConnection;
  let fresh: FreshLog;

  before(async () => {
    connection = await connectNats((await testServers()).natsUrl, 'test', silentLogger());
    // A neighbour's commit time can be a little before.
    const jumbled = (n: number): number => (n % 50 === 0 ? n - 2 : n);
    fresh = await filledLog(connection, 5_000, (n) => rowEvent(jumbled(n), 'insert', { after: {} }));
  });
  after(async () => {
    fresh.log.close();
    await fresh.remove();
    await connection.close();
  });

  async function found(request: RangeRequest): Promise<readonly [number, number]> {
    const { first, last } = await resolveRange(fresh.log, request, never);
    return [first, last];
  }
  const fault = async (request: RangeRequest): Promise<HeadwaterError> =>
    found(request).then(
      (range) => expect.fail(`found ${String(range)}`),
      (error: unknown) => error as HeadwaterError,
    );

  it('goes from a sequence, the oldest event or a time to a sequence, a time or the end', async () => {
    expect(await found({ from: { seq: 7 } })).to.deep.equal([7, 5_000]);
    expect(await found({ from: 'oldest', to: { seq: 9 } })).to.deep.equal([1, 9]);
    expect(await found({ from: { since: midnight + 1_234_000 } })).to.deep.equal([1_234, 5_000]);
    // 1,250 has the time of 1,248.
    expect(await found({ from: { since: midnight + 1_250_000 }, to: { time: midnight + 1_300_000 } })).to.deep.equal([1_251, 1_300]);
    expect(await found({ from: { since: midnight * 2 } })).to.deep.equal([5_001, 5_000]);
  });

  it('is nothing that the log does not have', async () => {
    expect(await fault({ from: { seq: 5_002 } })).to.include({ code: 'position_ahead', reaction: 'usage' });
    expect(await fault({ from: { seq: 1 }, to: { seq: 5_001 } })).to.include({ code: 'position_ahead', reaction: 'usage' });
    expect(await fault({ from: { seq: 10 }, to: { seq: 5 } })).to.include({ code: 'bad_range', reaction: 'usage' });
  });

  it('is refused where it begins before what is still held', async () => {
    await fresh.trim(1_000);
    for (const from of [{ seq: 999 }, { since: midnight + 500_000 }])
      expect(await fault({ from })).to.include({ code: 'offset_expired', reaction: 'usage' });
    expect(await found({ from: { seq: 1_000 } })).to.deep.equal([1_000, 5_000]);
    expect(await found({ from: 'oldest' })).to.deep.equal([1_000, 5_000]);
  });
});
