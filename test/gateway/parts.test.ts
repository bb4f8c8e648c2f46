import { expect } from 'chai';
import fc from 'fast-check';
import { addressGroup } from '../../gateway/client-address.ts';
import { Heartbeat, type Verdict } from '../../gateway/heartbeat.ts';
import { RecentWindow } from '../../gateway/recent-window.ts';
import { decodeToken, encodeToken } from '../../gateway/token.ts';
import { TokenBucket } from '../../gateway/token-bucket.ts';
import { textFrame } from '../../gateway/wire.ts';

describe('resume token', () => {
  it('gives back its position, and nothing that was altered passes', () => {
    fc.assert(
      fc.property(
        fc.string({ maxLength: 24, unit: 'grapheme' }),
        fc.maxSafeNat(),
        fc.nat(),
        fc.constantFrom('A', 'B', 'c', '0', '9', '-', '_'),
        (epoch, seq, at, char) => {
          const token = encodeToken({ epoch, seq });
          expect(decodeToken(token)).to.deep.equal({ epoch, seq });
          const i = at % token.length;
          const altered = token.slice(0, i) + char + token.slice(i + 1);
          if (altered !== token) expect(decodeToken(altered)).to.equal(undefined);
        },
      ),
    );
    for (const junk of ['', 'AAAA', '=', 'a'.repeat(10_000), `${encodeToken({ epoch: 'e', seq: 1 })}=`])
      expect(decodeToken(junk)).to.equal(undefined);
  });

  it('keeps its form: clients store tokens', () => {
    expect(encodeToken({ epoch: 'epoch-1', seq: 1_234_567 })).to.equal('AQAAAAAAEtaHZXBvY2gtMYuk0gEFIQ');
  });
});

describe('recent window', () => {
  it('holds the newest events without a hole, within its bytes', () => {
    fc.assert(
      fc.property(fc.array(fc.record({ size: fc.nat(2_000), gap: fc.boolean() }), { maxLength: 200 }), (steps) => {
        const window = new RecentWindow(10_000);
        let seq = 0;
        let run: number[] = [];
        for (const { size, gap } of steps) {
          seq += gap && size % 10 === 0 ? 2 : 1;
          run = run.at(-1) === seq - 1 ? [...run, seq] : [seq];
          window.push({ seq, bytes: new Uint8Array(size), channel: undefined, content: { type: '' }, at: undefined });
          const held = window.slice(window.first!, 1_000, Infinity).map((event) => event.seq);
          expect(held).to.deep.equal(run.slice(-held.length));
          expect(window.bytes <= 10_000 || held.length === 1).to.equal(true);
          expect(window.covers(window.first! - 1)).to.equal(false);
          expect(window.covers(seq + 1)).to.equal(true);
          expect(window.at(seq)?.seq).to.equal(seq);
        }
      }),
    );
  });
});

describe('heartbeat', () => {
  /** The verdicts of a minute, second by second, and when each came. */
  const minute = (socket: { sentBytes: number; unsentBytes: number }, replaying: boolean, answers: boolean): [Verdict, number][] => {
    const heartbeat = new Heartbeat(0);
    const verdicts: [Verdict, number][] = [];
    for (let second = 1; second <= 60; second++) {
      const verdict = heartbeat.check(second * 1_000, { ...socket, open: true }, replaying);
      if (verdict !== 'ok') verdicts.push([verdict, second]);
      if (verdict === 'ping' && answers) heartbeat.heard();
      if (verdict === 'dead' || verdict === 'slow') break;
    }
    return verdicts;
  };
  const idle = { sentBytes: 5, unsentBytes: 0 };
  const stuck = { sentBytes: 5, unsentBytes: 10 };

  it('pings every 25 s, and gives 10 s for the answer', () => {
    expect(minute(idle, false, true)).to.deep.equal([
      ['ping', 25],
      ['ping', 50],
    ]);
    expect(minute(idle, false, false)).to.deep.equal([
      ['ping', 25],
      ['dead', 35],
    ]);
  });

  it('calls a live connection slow that takes nothing for 10 s, and never one that replays', () => {
    expect(minute(stuck, false, true).at(-1)?.[0]).to.equal('slow');
    expect(minute(stuck, true, false).map(([verdict]) => verdict))
      .not.to.include.members(['slow'])
      .and.not.to.include('dead');
  });
});

describe('limits', () => {
  it('lets the rate through on average and the burst at once', () => {
    const bucket = new TokenBucket(20, 200, 0);
    let passed = 0;
    for (let now = 0; now < 10_000; now++) if (bucket.take(now) === 0) passed++;
    expect(passed).to.be.within(398, 400);
    expect(bucket.take(10_000)).to.be.within(0, 50);
  });

  it('counts a network of 64 bits as one IPv6 address', () => {
    expect(addressGroup('2001:db8:1:2:3:4:5:6')).to.equal(addressGroup('2001:db8:1:2::9'));
    expect(addressGroup('2001:db8::1')).not.to.equal(addressGroup('2001:db8:0:1::1'));
    expect(addressGroup('::ffff:10.0.0.1')).not.to.equal(addressGroup('::ffff:10.0.0.2'));
  });
});

describe('WebSocket frames', () => {
  for (const [length, header] of [
    [5, '8105'],
    [125, '817d'],
    [126, '817e007e'],
    [65_535, '817effff'],
    [65_536, '817f0000000000010000'],
  ] as const) {
    it(`has the header of RFC 6455 for ${length} bytes`, () => {
      const frame = textFrame([Buffer.alloc(length - 2, 97), Buffer.from('bb')]);
      expect(frame.subarray(0, header.length / 2).toString('hex')).to.equal(header);
      expect(frame.length).to.equal(header.length / 2 + length);
      expect(frame.subarray(-3).toString()).to.equal('abb');
    });
  }
});
