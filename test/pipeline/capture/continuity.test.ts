import { expect } from 'chai';
import { decideStart, type Facts } from '../../../pipeline/capture/continuity.ts';
import { HeadwaterError } from '../../../pipeline/runtime/errors.ts';
import { parseId } from '../../../pipeline/source/position.ts';

const logged = parseId('0000000100000200.00000003');

/** A healthy restart: the log ends at 1/200, the slot was confirmed up to there, the server has gone on to 1/900. */
const healthy: Facts = {
  database: { system: '7001', timeline: 1, flushLsn: 0x1_0000_0900n },
  leftTimelineAt: undefined,
  slot: { confirmed: 0x1_0000_0201n, walStatus: 'reserved', plugin: 'pgoutput', database: 'app' },
  currentDatabase: 'app',
  record: { system: '7001', timeline: 1, position: { seq: 90, position: parseId('0000000100000100.00000001') }, epochStart: 1 },
  log: { lastSeq: 100, last: logged },
};

/** No log and no record, as at a first start. */
const nothing: Pick<Facts, 'record' | 'log'> = {
  record: { system: undefined, timeline: undefined, position: undefined, epochStart: 1 },
  log: { lastSeq: 0, last: undefined },
};

function refusal(facts: Facts): HeadwaterError {
  try {
    decideStart(facts);
  } catch (error) {
    if (error instanceof HeadwaterError) {
      expect(error.reaction).to.equal('refused');
      return error;
    }
    throw error;
  }
  throw new Error('it was not refused');
}

function expectGap(facts: Facts, code: string, ...named: readonly string[]): void {
  const { code: found, message, hint } = refusal(facts);
  expect(found).to.equal(code);
  for (const text of named) expect(message).to.include(text);
  expect(hint).to.include('headwater resnapshot').and.to.include('headwater backfill --all --accept-gap');
}

describe('continuity: where capture may go on', () => {
  it('goes on right after the last event of the log', () => {
    expect(decideStart(healthy)).to.deep.equal({ start: 'stream', position: logged, copyAll: false });
  });

  it('goes on when the slot is behind the log: what comes again is skipped', () => {
    const slot = { ...healthy.slot!, confirmed: 0x1_0000_0100n };
    expect(decideStart({ ...healthy, slot })).to.deep.include({ start: 'stream', position: logged });
  });

  it('accepts a slot confirmed right behind the last event, and refuses one byte more', () => {
    const confirmed = (lsn: bigint): Facts => ({ ...healthy, slot: { ...healthy.slot!, confirmed: lsn } });
    expect(decideStart(confirmed(0x1_0000_0201n)).start).to.equal('stream');
    expectGap(confirmed(0x1_0000_0202n), 'slot_ahead', '1/202', '1/200', '0000000100000200.00000003');
  });

  it('makes slot and log where there is neither', () => {
    expect(decideStart({ ...healthy, ...nothing, slot: undefined })).to.deep.equal({ start: 'first' });
  });

  it('streams and copies everything when there is a slot beside a log that never held anything', () => {
    const decision = decideStart({ ...healthy, ...nothing });
    expect(decision).to.deep.equal({ start: 'stream', position: { lsn: 0x1_0000_0200n, index: 0xffffffff }, copyAll: true });
  });

  it('takes the kept position of a log that was trimmed to nothing', () => {
    const kept = parseId('0000000100000200.00000001');
    const facts = {
      ...healthy,
      record: { ...healthy.record, position: { seq: 100, position: kept } },
      log: { lastSeq: 100, last: undefined },
    };
    expect(decideStart(facts)).to.deep.equal({ start: 'stream', position: kept, copyAll: false });
  });

  it('refuses a trimmed log that has grown since its position was kept, with a slot and without', () => {
    const facts = { ...healthy, log: { lastSeq: 100, last: undefined } };
    expectGap(facts, 'log_trimmed', '100', '90', '1/900');
    expectGap({ ...facts, slot: undefined }, 'log_trimmed', '100', '90');
  });

  it('refuses another database system, naming both', () => {
    expectGap({ ...healthy, database: { ...healthy.database, system: '7002' } }, 'other_database', '7001', '7002');
  });

  it('refuses another database system before anything is in the log', () => {
    const record = { ...nothing.record, system: '7002' };
    expectGap({ ...healthy, ...nothing, record, slot: undefined }, 'other_database', '7001', '7002');
  });

  it('refuses a log that ends before what was confirmed, naming both sequences', () => {
    const log = { lastSeq: 89, last: parseId('0000000100000090.00000001') };
    expectGap({ ...healthy, log }, 'log_regressed', '89', '90');
  });

  it('refuses when the slot is gone, naming where the log ends and where the server is', () => {
    expectGap({ ...healthy, slot: undefined }, 'slot_missing', '0000000100000200.00000003', '1/900');
  });

  it('refuses a slot whose WAL is lost', () => {
    expectGap({ ...healthy, slot: { ...healthy.slot!, walStatus: 'lost' } }, 'slot_lost', '1/201');
  });

  it('refuses a lost slot also when the log is empty', () => {
    expectGap({ ...healthy, ...nothing, slot: { ...healthy.slot!, walStatus: 'lost' } }, 'slot_lost');
  });

  it('refuses a server that is behind the log, naming both positions', () => {
    expectGap({ ...healthy, database: { ...healthy.database, flushLsn: 0x1_0000_01ffn } }, 'database_behind', '1/1FF', '1/200');
  });

  it('goes on over a timeline switch behind its position, and refuses one before it', () => {
    const promoted = (leftTimelineAt: bigint | undefined): Facts => ({
      ...healthy,
      database: { ...healthy.database, timeline: 2 },
      leftTimelineAt,
    });
    expect(decideStart(promoted(0x1_0000_0300n)).start).to.equal('stream');
    expectGap(promoted(0x1_0000_0180n), 'timeline_switched', 'timeline 1', '2', '1/180', '1/200');
    expectGap(promoted(0x1_0000_0200n), 'timeline_switched', '1/200');
    expectGap(promoted(undefined), 'timeline_switched', '1/200');
  });

  it('refuses a slot of another database or of another plugin, and names the setting', () => {
    const elsewhere = refusal({ ...healthy, slot: { ...healthy.slot!, database: 'other' } });
    expect([elsewhere.code, elsewhere.hint]).to.deep.equal(['slot_elsewhere', 'name another slot with HEADWATER_SLOT']);
    expect(elsewhere.message).to.include('other').and.to.include('app');
    expect(refusal({ ...healthy, slot: { ...healthy.slot!, plugin: 'wal2json' } }).code).to.equal('slot_plugin');
  });

  it('does not take events of an earlier epoch for its own', () => {
    const record = { ...healthy.record, position: { seq: 100, position: logged }, epochStart: 101 };
    expect(decideStart({ ...healthy, record, log: { lastSeq: 100, last: undefined }, slot: undefined })).to.deep.equal({ start: 'first' });
  });
});
