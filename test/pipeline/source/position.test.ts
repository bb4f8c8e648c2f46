import { expect } from 'chai';
import fc from 'fast-check';
import {
  comparePositions,
  formatId,
  formatLsn,
  formatPgTime,
  parseId,
  parseLsn,
  type Position,
} from '../../../pipeline/source/position.ts';

const lsns = fc.oneof(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fc.bigInt({ min: 0n, max: 20n }));
const positions: fc.Arbitrary<Position> = fc.record({ lsn: lsns, index: fc.oneof(fc.nat(5), fc.integer({ min: 0, max: 0xffffffff })) });

describe('positions', () => {
  it('go to an id and back', () => {
    fc.assert(
      fc.property(positions, (position) => {
        expect(parseId(formatId(position))).to.deep.equal(position);
      }),
    );
    expect(formatId({ lsn: 0x2a1b2c8n, index: 7 })).to.equal('0000000002A1B2C8.00000007');
  });

  it('compare like their ids as text', () => {
    fc.assert(
      fc.property(positions, positions, (a, b) => {
        const [left, right] = [formatId(a), formatId(b)];
        expect(Math.sign(comparePositions(a, b))).to.equal(left === right ? 0 : left < right ? -1 : 1);
      }),
    );
  });

  it('read and print LSNs as Postgres does', () => {
    fc.assert(
      fc.property(lsns, (lsn) => {
        expect(parseLsn(formatLsn(lsn))).to.equal(lsn);
      }),
    );
    expect(formatLsn(0x16_b374d848n)).to.equal('16/B374D848');
    expect(formatLsn(0x1_00000001n)).to.equal('1/1');
    expect(parseLsn('ffffffff/0a')).to.equal(0xffffffff_0000000an);
  });

  it('refuse what is no id or LSN', () => {
    for (const id of [
      '',
      '0000000002A1B2C8',
      '0000000002a1b2c8.00000007',
      '0000000002A1B2C8.0000007',
      ' 0000000002A1B2C8.00000007',
      '0000000002A1B2C8.00000007\n',
    ])
      expect(() => parseId(id), JSON.stringify(id)).to.throw('not an event id');
    for (const lsn of ['', '1', '1/', '/1', '1/2/3', '123456789/0', '1/g', '0x1/2', '1/2\n'])
      expect(() => parseLsn(lsn), JSON.stringify(lsn)).to.throw('not an LSN');
  });

  it('print the times of Postgres to the microsecond', () => {
    const since2000 = Date.UTC(2000, 0);
    const times = fc.integer({ min: Date.UTC(1970, 0), max: Date.UTC(2250, 0) });
    fc.assert(
      fc.property(times, fc.nat(999), (ms, micros) => {
        const text = formatPgTime((ms - since2000) * 1_000 + micros);
        expect(text).to.equal(new Date(ms).toISOString().replace('Z', `${String(micros).padStart(3, '0')}Z`));
      }),
    );
  });
});
